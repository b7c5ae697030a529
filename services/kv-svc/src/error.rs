//! What a request can fail with: etcd's texts and gRPC codes, as one table.
//!
//! Clients compare these texts, so they are facts of the API (etcd `api/v3rpc/rpctypes/error.go`), not prose.

use std::fmt;

/// gRPC status codes that errors map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// CANCELLED.
    Canceled,
    /// INVALID_ARGUMENT.
    InvalidArgument,
    /// DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// NOT_FOUND.
    NotFound,
    /// PERMISSION_DENIED.
    PermissionDenied,
    /// RESOURCE_EXHAUSTED.
    ResourceExhausted,
    /// FAILED_PRECONDITION.
    FailedPrecondition,
    /// OUT_OF_RANGE.
    OutOfRange,
    /// UNIMPLEMENTED.
    Unimplemented,
    /// INTERNAL.
    Internal,
    /// UNAVAILABLE.
    Unavailable,
    /// DATA_LOSS.
    DataLoss,
    /// UNAUTHENTICATED.
    Unauthenticated,
    /// UNKNOWN.
    Unknown,
}

macro_rules! errors {
    ($($name:ident $code:ident $text:literal;)*) => {
        /// An error of the etcd API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum KvError {
            $(#[doc = $text] $name,)*
        }

        impl KvError {
            /// The gRPC code.
            pub fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }

            /// The text that clients see.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Every error, for tests and for finding one by its text.
            pub const ALL: &'static [KvError] = &[$(KvError::$name,)*];
        }
    };
}

errors! {
    EmptyKey InvalidArgument "etcdserver: key is not provided";
    KeyNotFound InvalidArgument "etcdserver: key not found";
    ValueProvided InvalidArgument "etcdserver: value is provided";
    LeaseProvided InvalidArgument "etcdserver: lease is provided";
    TooManyOps InvalidArgument "etcdserver: too many operations in txn request";
    DuplicateKey InvalidArgument "etcdserver: duplicate key given in txn request";
    InvalidSortOption InvalidArgument "etcdserver: invalid sort option";
    Compacted OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FutureRevision OutOfRange "etcdserver: mvcc: required revision is a future revision";
    NoSpace ResourceExhausted "etcdserver: mvcc: database space exceeded";
    LeaseNotFound NotFound "etcdserver: requested lease not found";
    LeaseExists FailedPrecondition "etcdserver: lease already exists";
    LeaseTtlTooLarge OutOfRange "etcdserver: too large lease TTL";
    WatchCanceled Canceled "etcdserver: watch canceled";
    MemberExists FailedPrecondition "etcdserver: member ID already exist";
    PeerUrlExists FailedPrecondition "etcdserver: Peer URLs already exists";
    NotEnoughStarted FailedPrecondition "etcdserver: re-configuration failed due to not enough started members";
    MemberBadUrls InvalidArgument "etcdserver: given member URLs are invalid";
    MemberNotFound NotFound "etcdserver: member not found";
    MemberNotLearner FailedPrecondition "etcdserver: can only promote a learner member";
    LearnerNotReady FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners FailedPrecondition "etcdserver: too many learner members in cluster";
    RequestTooLarge InvalidArgument "etcdserver: request is too large";
    TooManyRequests ResourceExhausted "etcdserver: too many requests";
    RootUserNotExist FailedPrecondition "etcdserver: root user does not exist";
    RootRoleNotExist FailedPrecondition "etcdserver: root user does not have root role";
    UserAlreadyExists FailedPrecondition "etcdserver: user name already exists";
    UserEmpty InvalidArgument "etcdserver: user name is empty";
    UserNotFound FailedPrecondition "etcdserver: user name not found";
    RoleAlreadyExists FailedPrecondition "etcdserver: role name already exists";
    RoleNotFound FailedPrecondition "etcdserver: role name not found";
    RoleEmpty InvalidArgument "etcdserver: role name is empty";
    AuthFailed InvalidArgument "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven InvalidArgument "etcdserver: permission not given";
    PermissionDenied PermissionDenied "etcdserver: permission denied";
    RoleNotGranted FailedPrecondition "etcdserver: role is not granted to the user";
    PermissionNotGranted FailedPrecondition "etcdserver: permission is not granted to the role";
    AuthNotEnabled FailedPrecondition "etcdserver: authentication is not enabled";
    InvalidAuthToken Unauthenticated "etcdserver: invalid auth token";
    InvalidAuthManagement InvalidArgument "etcdserver: invalid auth management";
    AuthOldRevision InvalidArgument "etcdserver: revision of auth store is old";
    NoLeader Unavailable "etcdserver: no leader";
    NotLeader FailedPrecondition "etcdserver: not leader";
    LeaderChanged Unavailable "etcdserver: leader changed";
    Stopped Unavailable "etcdserver: server stopped";
    Timeout Unavailable "etcdserver: request timed out";
    TimeoutLeaderFail Unavailable "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutWaitApplied Unavailable "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy Unavailable "etcdserver: unhealthy cluster";
    Corrupt DataLoss "etcdserver: corrupt cluster";
    NotSupportedForLearner FailedPrecondition "etcdserver: rpc not supported for learner";
    BadLeaderTransferee FailedPrecondition "etcdserver: bad leader transferee";
    WrongDowngradeVersion InvalidArgument "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTarget InvalidArgument "etcdserver: invalid downgrade target version";
    ClusterVersionUnavailable FailedPrecondition "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess FailedPrecondition "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade FailedPrecondition "etcdserver: no inflight downgrade job";
    StreamCustomSort Unimplemented "RangeStream does not support custom sort orders";
    StreamRevisionFilters Unimplemented "RangeStream does not support revision filters";
    StoreFailed Internal "etcdserver: the store failed";
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for KvError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_unique() {
        let mut texts: Vec<_> = KvError::ALL.iter().map(|e| e.text()).collect();
        texts.sort_unstable();
        let all = texts.len();
        texts.dedup();
        assert_eq!(all, texts.len());
    }
}
