//! Answers that are no success: a status code and a [`Failure`].

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::Failure;
use crate::store::StoreError;
use crate::store::error::Chain;

/// Why a request is not answered with what was asked for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    failure: Failure,
    /// Try again after so many seconds.
    retry_after: Option<u32>,
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
            retry_after: None,
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
            retry_after: Some(retry_after),
            ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
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
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
