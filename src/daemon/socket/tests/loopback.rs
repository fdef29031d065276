use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::super::{Socket, bind, bind_metrics};
use super::answers::service;

fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: filed\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // To the end: the connection is not kept.
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_loopback_port_tells_metrics_and_nothing_else() {
    let (folder, service, _orders) = service();
    let listening = bind(&folder.path().join("filed.sock")).unwrap();
    let metrics = bind_metrics("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = metrics.local_addr().unwrap();
    let socket = Socket::serve(listening, Some(metrics), service).unwrap();
    let answer = ask(address, "GET /metrics");
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.contains(kind), "{head}");
    assert!(
        text.contains("\nfiled_jobs{state=\"queued\"} 0\n"),
        "{text}"
    );
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    for (line, status) in [
        ("GET /", "404"),
        ("GET /v1/status", "404"),
        ("POST /v1/stop", "404"),
        ("POST /metrics", "405"),
    ] {
        let answer = ask(address, line);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    drop(socket);
    assert!(TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn an_address_that_is_taken_is_told_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind_metrics(address).unwrap_err().to_string();
    assert_eq!(error, format!("service.metrics: listen at {address}"));
}
