//! Which etcd this server stands in for, and which Quorate it is.

/// What clients are told: a plain X.Y.Z, for they parse it.
pub const ETCD_VERSION: &str = "3.7.3";
/// As the cluster and the storage version are shown in full.
pub const ETCD_STORAGE_VERSION: &str = "3.7.0";
/// The cluster version that members of this build agree on.
pub const ETCD_CLUSTER_VERSION: &str = "3.7";
pub const QUORATE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of the commit, where the build was told it.
pub const GIT_SHA: &str = match option_env!("QUORATE_GIT_SHA") {
    Some(sha) => sha,
    None => "Not provided (set QUORATE_GIT_SHA when building)",
};

/// etcd's four lines, which tools parse, and ours.
pub(super) fn text() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {GIT_SHA}\nGo Version: none (Quorate is written in Rust)\n\
         Go OS/Arch: {}/{architecture}\nQuorate Version: {QUORATE_VERSION}\n",
        std::env::consts::OS,
    )
}
