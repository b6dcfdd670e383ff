//! Problem responses of the file and upload routes.

use http_kit::{
    IntoProblem, Problem,
    access::does_not_exist,
    openapi::{Responses, problem_responses},
};
use utoipa::IntoResponses;
use uuid::Uuid;

use crate::{body_receiver::ReceiveError, domain::file::FileError};

/// Returns the same 404 for a missing file and for another organization's file.
pub(super) fn file_not_found(id: Uuid) -> Problem {
    does_not_exist("file", id)
}

impl IntoProblem for FileError {
    fn into_problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            FileError::NotFound => Problem::not_found(detail),
            FileError::AlreadyStarted => Problem::conflict(detail),
            FileError::Name(_) => Problem::unprocessable(detail).of_kind("/problems/file-name", "invalid file name"),
            FileError::ContentType(_) => {
                Problem::unprocessable(detail).of_kind("/problems/content-type", "invalid content type")
            }
            FileError::TooManyParts => {
                Problem::unprocessable(detail).of_kind("/problems/too-many-parts", "too many parts")
            }
            FileError::TooLarge | FileError::ExceedsDeclared { .. } => Problem::payload_too_large(detail),
            FileError::OffsetMismatch { .. } => {
                Problem::conflict(detail).of_kind("/problems/upload-offset", "wrong upload offset")
            }
            FileError::AlreadyComplete => {
                Problem::conflict(detail).of_kind("/problems/upload-complete", "upload is complete")
            }
            FileError::NotComplete => {
                Problem::conflict(detail).of_kind("/problems/upload-incomplete", "upload is not complete")
            }
        }
    }
}

impl From<ReceiveError> for Problem {
    fn from(error: ReceiveError) -> Self {
        let detail = error.to_string();
        match error {
            ReceiveError::Execute(error) => error.into(),
            ReceiveError::Storage(error) => Problem::internal(error),
            ReceiveError::TooLong => Problem::payload_too_large(detail),
            ReceiveError::Interrupted { .. } => Problem::bad_request(detail),
            ReceiveError::Stopping { .. } => Problem::unavailable(detail),
        }
    }
}

/// Problems of every route that needs the lowest role.
pub(super) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> Responses {
        problem_responses(&[
            (400, "A path parameter, a query parameter or a header is malformed."),
            (401, "The request has no valid API key."),
            (404, "The organization, file or upload does not exist, or the caller is not a member."),
        ])
    }
}

/// Problems of every route that needs a higher role.
pub(super) struct WriteProblems;

impl IntoResponses for WriteProblems {
    fn responses() -> Responses {
        let mut responses = ReadProblems::responses();
        responses.extend(problem_responses(&[(403, "The caller's role is too low.")]));
        responses
    }
}

/// Problems of every route that receives file content.
pub(super) struct ReceiveProblems;

impl IntoResponses for ReceiveProblems {
    fn responses() -> Responses {
        problem_responses(&[
            (412, "`Tus-Resumable` is missing or is another version of tus."),
            (413, "The body exceeds the declared size, or the file exceeds 5 TiB."),
            (503, "The server is stopping. Received bytes are stored; resume at the offset that HEAD returns."),
        ])
    }
}
