//! Where the first members are found when `--initial-cluster` does not name them.

use std::{fmt, time::Duration};

use super::{build::duration, value::Settings};

#[derive(Clone, Debug)]
pub enum Discovery {
    Srv(SrvDiscovery),
    Service(ServiceDiscovery),
}

/// `--discovery-srv`: SRV records of a DNS domain.
#[derive(Clone, Debug)]
pub struct SrvDiscovery {
    pub domain: String,
    /// `--discovery-srv-name`; empty for none.
    pub service_name: String,
}

/// `--discovery-endpoints` and what goes with it: an etcd v3 server at which members register.
#[derive(Clone)]
pub struct ServiceDiscovery {
    pub endpoints: Vec<String>,
    pub token: String,
    pub dial_timeout: Duration,
    /// Connecting not included.
    pub request_timeout: Duration,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    /// Empty for none.
    pub user: String,
    pub password: String,
}

impl fmt::Debug for ServiceDiscovery {
    /// Without the password: configurations are printed.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = (&self.endpoints, &self.token, &self.user);
        out.debug_tuple("ServiceDiscovery").field(&fields).finish_non_exhaustive()
    }
}

/// At most one of them is asked for: that was checked.
pub(super) fn of(settings: &Settings) -> Result<Option<Discovery>, String> {
    let (endpoints, domain) = (settings.list("discovery-endpoints"), settings.text("discovery-srv"));
    if !endpoints.is_empty() {
        let (user, password) = credentials(settings.text("discovery-user"), settings.text("discovery-password"));
        return Ok(Some(Discovery::Service(ServiceDiscovery {
            endpoints,
            token: settings.text("discovery-token"),
            dial_timeout: duration(settings, "discovery-dial-timeout")?,
            request_timeout: duration(settings, "discovery-request-timeout")?,
            keepalive_time: duration(settings, "discovery-keepalive-time")?,
            keepalive_timeout: duration(settings, "discovery-keepalive-timeout")?,
            user,
            password,
        })));
    }
    let service_name = settings.text("discovery-srv-name");
    Ok((!domain.is_empty()).then_some(Discovery::Srv(SrvDiscovery { domain, service_name })))
}

/// `--discovery-user` may hold both.
fn credentials(user: String, password: String) -> (String, String) {
    match user.split_once(':') {
        Some((user, password_too)) if password.is_empty() => (user.to_owned(), password_too.to_owned()),
        _ => (user, password),
    }
}

#[cfg(test)]
mod tests {
    use super::credentials;

    #[test]
    fn a_password_may_stand_in_either_flag() {
        for (user, password, expected) in [
            ("root:a:b", "", ("root", "a:b")),
            ("root", "p", ("root", "p")),
            ("a:b", "p", ("a:b", "p")),
            ("", "", ("", "")),
        ] {
            let (got_user, got_password) = credentials(user.into(), password.into());
            assert_eq!((got_user.as_str(), got_password.as_str()), expected);
        }
    }
}
