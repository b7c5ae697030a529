//! From the domain's errors to the wire's statuses.

use tonic::Status;

use crate::engine::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound(_) => Self::not_found(text),
            Error::Invalid(_) => Self::invalid_argument(text),
            Error::State(_) => Self::failed_precondition(text),
            Error::Unavailable(_) => Self::unavailable(text),
            Error::Unsupported(_) => Self::unimplemented(text),
            Error::Deadline(_) => Self::deadline_exceeded(text),
            // The original's plain errors arrive with this code.
            Error::Failed(_) => Self::unknown(text),
        }
    }
}
