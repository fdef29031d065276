//! A service without a data plane, asked for everything: each answer is one that the document has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::rights::{Owner, Peer};
use super::super::{Desktop, router};
use super::schema::Document;
use crate::daemon::service::control::{Order, Trimmed};
use crate::daemon::service::desk::DeskSettings;
use crate::daemon::service::reload::Reloaded;
use crate::daemon::service::{Parts, Service};
use crate::daemon::tuning::Plan;
use crate::heap::{Gc, GcCell, Heap, Pool, Totals, traced};
use crate::pipeline::scrub::ScrubOptions;
use crate::pipeline::{Limits, Options};
use crate::pressure::level::Thresholds;
use crate::store::Store;
use crate::store::format::Chunking;

traced! {
    struct Node { next: GcCell<Option<Gc<Node>>> }
}

pub(super) fn service() -> (TempDir, Arc<Service>, mpsc::Receiver<Order>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(&folder.path().join("store"), Chunking::Fixed).unwrap();
    let plan = Plan {
        workers: 1,
        buffer_bytes: 8 << 20,
        cache_bytes: 1 << 20,
    };
    let (service, orders) = Service::new(Parts {
        store: Arc::new(store),
        pool: Pool::new(plan.buffer_bytes),
        limits: Arc::new(Limits::new(1)),
        options: Options {
            workers: 1,
            level: 1,
            pack_bytes: 64 << 20,
            reread: false,
        },
        desk: DeskSettings {
            most_open: 10,
            attempts: 1,
            history: Duration::from_secs(60),
            history_jobs: 10,
        },
        scrub: ScrubOptions {
            rate_bytes: None,
            every: Duration::from_secs(60),
        },
        heap: Arc::<Totals>::default(),
        thresholds: Thresholds::new(50, 60, 80, 100).unwrap(),
        why: vec!["as configured".to_owned()],
        plan,
    })
    .unwrap();
    (folder, service, orders)
}

/// Obeys as the control loop does, with a heap on which something leaks each time it is looked at.
fn obey(mut orders: mpsc::Receiver<Order>) {
    let heap = Heap::new();
    heap.trace_allocations(2);
    let mut kept = Vec::new();
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Trim(reply) => {
                let _ = reply.send(Trimmed {
                    resident_before_bytes: 2,
                    resident_after_bytes: 1,
                    buffers_bytes: 1,
                });
            }
            Order::Reload(reply) => {
                let _ = reply.send(Ok(Reloaded::default()));
            }
            Order::Examine(look) => {
                for _ in 0..100 {
                    let next = GcCell::default();
                    kept.push(heap.alloc(Node { next }).unwrap());
                }
                let alone = heap
                    .alloc(Node {
                        next: GcCell::default(),
                    })
                    .unwrap();
                *alone.next.borrow_mut() = Some(alone.clone());
                drop(alone);
                look(&heap);
            }
            Order::Stop | Order::Look => {}
        }
    }
}

struct Asker {
    router: axum::Router,
    document: Document,
}

impl Asker {
    /// Asks, and checks that the document has the answer.
    async fn ask(&self, method: &str, wanted: &str, body: &str, status: StatusCode) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(wanted)
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let service = TowerToHyperService::new(self.router.clone());
        let answer = service.call(request).await.unwrap();
        let what = format!("{method} {wanted}");
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(parts.status, status, "{what}: {body:?}");
        let kind =
            (parts.headers.get("content-type")).map(|kind| kind.to_str().unwrap().to_owned());
        self.check(&what, method, wanted, status, kind, &body)
    }

    fn check(
        &self,
        what: &str,
        method: &str,
        wanted: &str,
        status: StatusCode,
        kind: Option<String>,
        body: &Bytes,
    ) -> Value {
        let path = wanted.split('?').next().unwrap();
        let paths = self.document.json()["paths"].as_object().unwrap();
        let numbered: String = (path.split('/'))
            .map(
                |part| match part.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
                    true => "{id}",
                    false => part,
                },
            )
            .collect::<Vec<_>>()
            .join("/");
        let operation = &paths[&numbered][method.to_lowercase()];
        let answer = &operation["responses"][status.as_str()];
        assert!(!answer.is_null(), "{what}: {status} is not documented");
        let content = &self.document.resolve(answer)["content"];
        let Some(kind) = kind else {
            assert!(content.is_null() && body.is_empty(), "{what}");
            return Value::Null;
        };
        let schema = &content[&kind]["schema"];
        assert!(!schema.is_null(), "{what}: {kind} is not documented");
        if kind != "application/json" {
            return Value::Null;
        }
        let value: Value = serde_json::from_slice(body).unwrap();
        self.document
            .check(schema, &value, what)
            .unwrap_or_else(|mistake| panic!("{mistake}"));
        value
    }
}

#[test]
fn every_answer_is_one_that_the_document_has() {
    let (folder, service, orders) = service();
    let file = folder.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let obeying = std::thread::spawn(|| obey(orders));
    let peer = Peer { uid: Some(0) };
    let asker = Asker {
        router: router(Desktop::new(Arc::clone(&service)), Owner(0)).layer(Extension(peer)),
        document: Document::new(),
    };
    let runtime = runtime();
    let ok = StatusCode::OK;
    runtime.block_on(async {
        let paths = format!(r#"{{"paths":[{{"path":"{}"}}]}}"#, file.display());
        let sent = asker.ask("POST", "/v1/jobs", &paths, ok).await;
        assert_eq!(sent["submitted"][0]["queued"], 1, "{sent}");
        for (wrong, status) in [
            ("{", 400),
            (r#"{"paths":1}"#, 422),
            (r#"{"paths":[{"path":"a"}]}"#, 400),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            asker.ask("POST", "/v1/jobs", wrong, status).await;
        }
        for path in [
            "status",
            "live",
            "ready",
            "metrics",
            "openapi.json",
            "jobs?limit=1",
            "jobs/1",
            "files",
        ] {
            asker.ask("GET", &format!("/v1/{path}"), "", ok).await;
        }
        for path in [
            "jobs?wrong=1",
            "jobs?state=wrong",
            "files?limit=x",
            "heap/compare",
            "files/content",
        ] {
            let path = format!("/v1/{path}");
            asker.ask("GET", &path, "", StatusCode::BAD_REQUEST).await;
        }
        let none = StatusCode::NOT_FOUND;
        for path in [
            "jobs/77",
            "files/versions?name=/a",
            "files/content?name=/a",
            "heap/leaks?since=77",
        ] {
            asker.ask("GET", &format!("/v1/{path}"), "", none).await;
        }
        asker
            .ask("DELETE", "/v1/jobs/1", "", StatusCode::ACCEPTED)
            .await;
        asker
            .ask("DELETE", "/v1/jobs/1", "", StatusCode::CONFLICT)
            .await;
        asker
            .ask("POST", "/v1/jobs/1/retry", "", StatusCode::ACCEPTED)
            .await;
        asker.ask("POST", "/v1/jobs/77/retry", "", none).await;
        for path in ["heap/snapshots?label=a", "heap/snapshots"] {
            let path = format!("/v1/{path}");
            asker.ask("POST", &path, "", StatusCode::CREATED).await;
        }
        for path in [
            "heap",
            "heap/snapshots",
            "heap/compare?since=1",
            "heap/compare?since=1&to=2",
            "heap/leaks?since=1",
        ] {
            asker.ask("GET", &format!("/v1/{path}"), "", ok).await;
        }
        for path in ["collect", "trim", "reload"] {
            asker.ask("POST", &format!("/v1/{path}"), "", ok).await;
        }
        asker
            .ask("POST", "/v1/stop", "", StatusCode::ACCEPTED)
            .await;
        asker
            .ask("POST", "/v1/pause", "", StatusCode::NO_CONTENT)
            .await;
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        asker.ask("GET", "/v1/ready", "", busy).await;
        asker
            .ask("PUT", "/v1/files/content?name=/a", "", busy)
            .await;
        asker
            .ask("POST", "/v1/resume", "", StatusCode::NO_CONTENT)
            .await;
    });
    asker
        .document
        .assert_all_seen(|schema| super::ONLY_ANSWERED.contains(&schema));
    drop((runtime, asker, service));
    obeying.join().unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

#[test]
fn who_may_only_look_is_told_so_in_the_documented_form() {
    let (_folder, service, _orders) = service();
    let peer = Peer { uid: Some(1001) };
    let asker = Asker {
        router: router(Desktop::new(service), Owner(1000)).layer(Extension(peer)),
        document: Document::new(),
    };
    let runtime = runtime();
    runtime.block_on(async {
        asker.ask("GET", "/v1/live", "", StatusCode::OK).await;
        for route in super::routes() {
            let method = super::name(route.method);
            if method != "get" {
                let path = route.path.replace("{id}", "1");
                let method = method.to_uppercase();
                asker.ask(&method, &path, "", StatusCode::FORBIDDEN).await;
            }
        }
    });
}

#[test]
fn the_heap_is_looked_at_for_one_at_a_time_and_not_for_who_has_gone() {
    let (_folder, service, mut orders) = service();
    let desktop = Desktop::new(service);
    let asker = Asker {
        router: router(desktop.clone(), Owner(0)).layer(Extension(Peer { uid: Some(1001) })),
        document: Document::new(),
    };
    let runtime = runtime();
    runtime.block_on(async {
        let looked = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&looked);
        let mut first = Box::pin(desktop.look(move |_| mark.store(true, Ordering::Relaxed)));
        let order = tokio::select! {
            biased;
            _ = &mut first => panic!("nobody looks yet"),
            order = orders.recv() => order,
        };
        let Some(Order::Examine(waiting)) = order else {
            panic!("another order");
        };
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        asker.ask("GET", "/v1/heap", "", busy).await;
        drop(first);
        // Still: what was asked for has not had its turn.
        asker.ask("GET", "/v1/heap", "", busy).await;
        let heap = Heap::new();
        waiting(&heap);
        assert!(!looked.load(Ordering::Relaxed), "nobody wants to know");
        let obey = async {
            match orders.recv().await {
                Some(Order::Examine(look)) => look(&heap),
                _ => panic!("another order"),
            }
        };
        let (census, ()) = tokio::join!(asker.ask("GET", "/v1/heap", "", StatusCode::OK), obey);
        assert_eq!(census["objects"], 0, "{census}");
    });
}
