//! Who may do what, by what the kernel says of the other end.
//!
//! Whoever could connect may read: the socket's mode lets only its owner, its group and root do so, and a
//! socket unit may say otherwise. Only the user that the service runs as, and root, may change anything.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::net::UnixStream;

use super::files::drain;
use super::reply::Refusal;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its user; none if the kernel would not say.
    pub uid: Option<u32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> Peer {
        Peer {
            uid: stream.peer_cred().ok().map(|credentials| credentials.uid()),
        }
    }

    /// Whether it may change anything of a service that `owner` runs.
    pub(super) fn may_change(self, owner: u32) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == owner)
    }
}

/// The user that the service runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner(pub u32);

/// Lets only those change anything who may.
pub(super) async fn check(State(owner): State<Owner>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let peer = request.extensions().get::<Peer>().copied();
    if reads || peer.is_some_and(|peer| peer.may_change(owner.0)) {
        return next.run(request).await;
    }
    drain(request.into_body()).await;
    let message = format!(
        "the service belongs to another user (uid {}), and you may only look",
        owner.0
    );
    Refusal::new(StatusCode::FORBIDDEN, message)
        .hint("run this as that user or as root")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_may_change_anything() {
        let peer = |uid| Peer { uid };
        assert!(peer(Some(0)).may_change(1000));
        assert!(peer(Some(1000)).may_change(1000));
        assert!(!peer(Some(1001)).may_change(1000));
        assert!(!peer(None).may_change(1000));
    }
}
