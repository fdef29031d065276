//! What a request says, read so that a mistake in it is answered in the form of every other failure.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::reply::{Answer, Refusal};

/// What stands behind the `?`.
pub(super) struct InQuery<T>(pub T);

/// What stands in the path.
pub(super) struct InPath<T>(pub T);

/// What was sent, as JSON.
pub(super) struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Answer<Self> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(query)| InQuery(query))
            .map_err(|error| Refusal::new(error.status(), error.body_text()))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(path)| InPath(path))
            .map_err(|error| Refusal::new(error.status(), error.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let read = axum::Json::from_request(request, state).await;
        read.map(|axum::Json(sent)| Sent(sent))
            .map_err(|error| Refusal::new(error.status(), error.body_text()))
    }
}
