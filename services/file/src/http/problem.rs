//! What clients are told when a file says no.

use service_kit::{IntoProblem, Problem};
use uuid::Uuid;

use crate::{body_receiver::ReceiveError, domain::file::FileError};

/// 404.
pub(crate) fn no_file(id: Uuid) -> Problem {
    Problem::not_found(format!("file {id} does not exist"))
}

impl IntoProblem for FileError {
    fn into_problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            FileError::NotFound => Problem::not_found(detail),
            FileError::AlreadyStarted => Problem::conflict(detail),
            FileError::Name(_) => Problem::unprocessable(detail).of_kind("/problems/file-name", "bad file name"),
            FileError::ContentType(_) => {
                Problem::unprocessable(detail).of_kind("/problems/content-type", "bad content type")
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
            ReceiveError::BrokenOff { .. } => Problem::bad_request(detail),
            ReceiveError::Stopping { .. } => Problem::unavailable(detail),
        }
    }
}
