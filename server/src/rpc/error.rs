//! Errors as they go over the wire: etcd's code and text for each, which clients match byte for byte.

use quorate_store::{Failure, Rejection};
use tonic::{Code, Status};

use crate::node::RequestError;

/// As the services of etcd answer.
pub(crate) fn status(error: impl Into<RequestError>) -> Status {
    let error = error.into();
    Status::new(code(&error), error.to_string())
}

/// As its lock and election services answer: they are clients of the others inside the server, and what a client
/// library makes of an error has lost its code.
pub(super) fn unknown(error: impl Into<RequestError>) -> Status {
    Status::unknown(error.into().to_string())
}

pub(super) fn failure(failure: Failure) -> Status {
    status(RequestError::from(failure))
}

/// What Go's gRPC says of a message above the limit, where `text` is what tonic says of it: "... found X bytes, the
/// limit is: Y bytes". tonic's code for it is OutOfRange, Go's ResourceExhausted.
pub(crate) fn oversize(text: &str) -> Option<String> {
    let (found, limit) =
        text.strip_prefix("Error, decoded message length too large: found ")?.split_once(" bytes, ")?;
    let limit = limit.strip_prefix("the limit is: ")?.strip_suffix(" bytes")?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

fn code(error: &RequestError) -> Code {
    match error {
        RequestError::Rejected(rejection) => rejection_code(rejection),
        RequestError::TooLarge => Code::InvalidArgument,
        // etcd's own table says ResourceExhausted, but its servers have always sent this.
        RequestError::TooManyRequests => Code::Unknown,
        RequestError::NotLeader | RequestError::NotForLearners => Code::FailedPrecondition,
        RequestError::NoLeader | RequestError::LeaderChanged | RequestError::TimedOut | RequestError::Stopped => {
            Code::Unavailable
        }
    }
}

fn rejection_code(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::EmptyKey
        | Rejection::KeyNotFound
        | Rejection::ValueProvided
        | Rejection::LeaseProvided
        | Rejection::TooManyOps
        | Rejection::DuplicateKey
        | Rejection::InvalidSortOption
        | Rejection::UserEmpty
        | Rejection::RoleEmpty
        | Rejection::PermissionNotGiven
        | Rejection::AuthOldRevision
        | Rejection::InvalidAuthManagement => Code::InvalidArgument,
        Rejection::Compacted | Rejection::FutureRevision | Rejection::LeaseTtlTooLarge => Code::OutOfRange,
        Rejection::NoSpace => Code::ResourceExhausted,
        Rejection::Corrupt => Code::DataLoss,
        Rejection::LeaseNotFound | Rejection::MemberNotFound => Code::NotFound,
        Rejection::PermissionDenied => Code::PermissionDenied,
        Rejection::LeaseExists
        | Rejection::NotLeader
        | Rejection::RootUserNotExist
        | Rejection::RootRoleNotExist
        | Rejection::UserAlreadyExist
        | Rejection::UserNotFound
        | Rejection::RoleAlreadyExist
        | Rejection::RoleNotFound
        | Rejection::RoleNotGranted
        | Rejection::PermissionNotGranted
        | Rejection::AuthNotEnabled => Code::FailedPrecondition,
    }
}
