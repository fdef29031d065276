//! Answers that are no success: a status code and a [`Failure`].

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::Failure;
use crate::store::StoreError;
use crate::store::error::Chain;

/// Why a request is not answered with what was asked for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    failure: Failure,
    /// What the status has beside it: when to try again, or what could have been asked for.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// An answer, or why there is none.
pub(super) type Answer<T> = Result<T, Refusal>;

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal {
            status,
            failure: Failure {
                error: error.into(),
                hint: None,
            },
            header: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.failure.hint = Some(hint.into());
        self
    }

    /// The request makes no sense.
    pub(super) fn bad(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error)
    }

    /// There is no such thing.
    pub(super) fn missing(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, error)
    }

    /// Not now; after so many seconds it may be otherwise.
    pub(super) fn busy(error: impl Into<String>, retry_after: u32) -> Refusal {
        Refusal {
            header: Some(Box::new((header::RETRY_AFTER, retry_after.into()))),
            ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }

    /// There is no such part of what has so many bytes.
    pub(super) fn no_such_part(size_bytes: u64) -> Refusal {
        let range = HeaderValue::from_str(&format!("bytes */{size_bytes}"));
        Refusal {
            header: range
                .ok()
                .map(|range| Box::new((header::CONTENT_RANGE, range))),
            ..Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                format!("the file has {size_bytes} bytes"),
            )
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        let text = Chain(&error).to_string();
        match &error {
            StoreError::NotStored { .. } => Refusal::missing(text),
            error if error.is_disk_full() => Refusal::new(StatusCode::INSUFFICIENT_STORAGE, text)
                .hint("make room on the store's disk"),
            _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.failure)).into_response();
        if let Some(header) = self.header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
        }
        response
    }
}
