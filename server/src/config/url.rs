//! A URL as etcd's configuration knows it: kept letter for letter, for member IDs are made from it and clients are
//! shown it. (A general URL type would add a slash and drop a default port.) The errors are those of Go 1.26's
//! `net/url`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    /// TLS over a Unix socket.
    Unixs,
}

impl Scheme {
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Unixs)
    }

    pub fn is_socket_file(self) -> bool {
        matches!(self, Scheme::Unix | Scheme::Unixs)
    }
}

#[derive(Clone, Debug)]
pub struct Url {
    text: String,
    scheme: Scheme,
    /// Without the brackets of IPv6.
    host: String,
    port: Option<u16>,
    /// `host:port` as written, and then the path: where a socket file is.
    socket_file: String,
}

impl Url {
    /// One URL, by etcd's rules: http and https with `host:port` and no path, or unix and unixs.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let parts = Parts::split(text).map_err(|e| format!("parse {text:?}: {e}"))?;
        let scheme = match parts.scheme.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        };
        let (host, port) = match split_host_port(&parts.host) {
            Some((host, port)) => (host, port),
            None if scheme.is_socket_file() => (parts.host.clone(), String::new()),
            None => return Err(format!("URL address does not have the form \"host:port\": {text}")),
        };
        if !scheme.is_socket_file() && !parts.path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        // An empty port is legal and means one of the system's choice, as in Go.
        let port = match port.as_str() {
            "" => Some(0),
            digits => digits.parse().ok(),
        };
        if port.is_none() && !scheme.is_socket_file() {
            return Err(format!("URL port must be at most {}: {text}", u16::MAX));
        }
        let rest = &text[parts.scheme.len()..];
        let socket_file = format!("{}{}", parts.host, parts.path);
        Ok(Self { text: format!("{}{rest}", parts.scheme), scheme, host, port, socket_file })
    }

    /// Comma-separated, sorted and without repetition.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut urls = text.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// 0 where none was given; none for most socket files.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The file of a `unix://` URL: `unix://localhost:2379` is a file of that name in the working directory.
    pub fn socket_file(&self) -> Option<PathBuf> {
        self.scheme.is_socket_file().then(|| PathBuf::from(&self.socket_file))
    }

    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether nobody outside this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.scheme.is_socket_file() || self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    pub(super) fn with_host(&self, ip: IpAddr, port: u16) -> Result<Self, String> {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        Self::parse(&format!("{scheme}://{host}:{port}"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Url {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Url {}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Url {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

pub(super) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

struct Parts {
    scheme: String,
    host: String,
    path: String,
}

impl Parts {
    fn split(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err("net/url: invalid control character in URL".into());
        }
        let before_fragment = text.split_once('#').map_or(text, |(before, _)| before);
        let (scheme, rest) = split_scheme(before_fragment)?;
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                // "unix:file" and "localhost:2379": neither has a host.
                return Ok(Self { scheme, host: String::new(), path: String::new() });
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("first path segment in URL cannot contain colon".into());
            }
        }
        let Some(authority) = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///")) else {
            return Ok(Self { scheme, host: String::new(), path: rest.into() });
        };
        let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Ok(Self { scheme, host: check_host(host)?, path: path.into() })
    }
}

fn split_scheme(text: &str) -> Result<(String, &str), String> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((text[..i].to_ascii_lowercase(), &text[i + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[') {
        let Some((address, after)) = inner.rsplit_once(']') else { return Err("missing ']' in host".into()) };
        check_port(after)?;
        let address = address.replace("%25", "%");
        let bare = address.split('%').next().unwrap_or_default();
        if bare.parse::<Ipv6Addr>().is_err() {
            return Err(format!("invalid host: ParseAddr({bare:?}): unable to parse IP"));
        }
        return Ok(format!("[{address}]{after}"));
    }
    if let Some(at) = host.find(':') {
        check_port(&host[at..])?;
    }
    if let Some(at) = host.find('%') {
        let escape: String = host[at..].chars().take(3).collect();
        return Err(format!("invalid URL escape {escape:?}"));
    }
    match host.chars().find(|c| matches!(c, ' ' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => Ok(host.into()),
    }
}

fn check_port(port: &str) -> Result<(), String> {
    let valid = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if valid { Ok(()) } else { Err(format!("invalid port {port:?} after host")) }
}

/// Go's `net.SplitHostPort`, after [`check_host`] has seen the text.
fn split_host_port(text: &str) -> Option<(String, String)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?.into(), port.into())),
        None if host.contains(':') => None,
        None => Some((host.into(), port.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observed in etcd 3.7.3.
    #[test]
    fn good_urls_keep_their_letters() {
        for (text, kept, host, port) in [
            ("http://[::1]:2379", "http://[::1]:2379", "::1", Some(2379)),
            ("http://1.2.3.4:", "http://1.2.3.4:", "1.2.3.4", Some(0)),
            ("HTTP://1.2.3.4:1", "http://1.2.3.4:1", "1.2.3.4", Some(1)),
            (" http://1.2.3.4:80 ", "http://1.2.3.4:80", "1.2.3.4", Some(80)),
            ("http://u:p@1.2.3.4:1", "http://u:p@1.2.3.4:1", "1.2.3.4", Some(1)),
            ("http://1.2.3.4:1?x=1", "http://1.2.3.4:1?x=1", "1.2.3.4", Some(1)),
            ("http://a_b:1", "http://a_b:1", "a_b", Some(1)),
            ("http://[fe80::1%25eth0]:1", "http://[fe80::1%25eth0]:1", "fe80::1%eth0", Some(1)),
            ("unix://localhost:2", "unix://localhost:2", "localhost", Some(2)),
            ("unix:///tmp/x", "unix:///tmp/x", "", Some(0)),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.as_str(), url.host(), url.port()), (kept, host, port), "{text}");
        }
        assert_eq!(Url::parse("unix://localhost:2").unwrap().socket_file(), Some("localhost:2".into()));
        assert_eq!(Url::parse("unix:///tmp/x").unwrap().socket_file(), Some("/tmp/x".into()));
        assert_eq!(Url::parse("http://a:1").unwrap().socket_file(), None);
    }

    /// Observed in etcd 3.7.3.
    #[test]
    fn bad_urls_are_refused_in_go_words() {
        for (text, error) in [
            ("http://::1:2379", r#"parse "http://::1:2379": invalid port "::1:2379" after host"#),
            ("http://[::1]", r#"URL address does not have the form "host:port": http://[::1]"#),
            ("http://a:b:1", r#"parse "http://a:b:1": invalid port ":b:1" after host"#),
            ("http://[::1:2", r#"parse "http://[::1:2": missing ']' in host"#),
            ("://x:1", r#"parse "://x:1": missing protocol scheme"#),
            ("http://1.2.3.4:1/", "URL must not contain a path: http://1.2.3.4:1/"),
            ("http://foo:1/x", "URL must not contain a path: http://foo:1/x"),
            ("http:1.2.3.4:1", r#"URL address does not have the form "host:port": http:1.2.3.4:1"#),
            ("http:/1.2.3.4:1", r#"URL address does not have the form "host:port": http:/1.2.3.4:1"#),
            ("1http://a:1", r#"parse "1http://a:1": first path segment in URL cannot contain colon"#),
            ("127.0.0.1:2379", r#"parse "127.0.0.1:2379": first path segment in URL cannot contain colon"#),
            ("localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
            ("http://a b:1", r#"parse "http://a b:1": invalid character " " in host name"#),
            ("http://a\tb:1", r#"parse "http://a\tb:1": net/url: invalid control character in URL"#),
            ("http://%41:1", r#"parse "http://%41:1": invalid URL escape "%41""#),
            ("http://%zz:1", r#"parse "http://%zz:1": invalid URL escape "%zz""#),
            ("//x:1", "URL scheme must be http, https, unix, or unixs: //x:1"),
            ("/x", "URL scheme must be http, https, unix, or unixs: /x"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("http://", r#"URL address does not have the form "host:port": http://"#),
            ("http://foo", r#"URL address does not have the form "host:port": http://foo"#),
            ("http://[zz]:1", r#"parse "http://[zz]:1": invalid host: ParseAddr("zz"): unable to parse IP"#),
            ("ftp://foo:1", "URL scheme must be http, https, unix, or unixs: ftp://foo:1"),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), error);
        }
        assert!(Url::parse("http://1.2.3.4:99999").is_err(), "etcd finds this only when it listens");
    }

    #[test]
    fn a_list_is_sorted_and_each_url_stands_once() {
        let urls = Url::parse_list("http://b:1, http://a:1,http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:1,http://b:1");
    }
}
