//! The initial cluster: how it is written, and whether it fits this member. Asked only where the data directory is
//! empty, for on a restart etcd does not look at it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, ToSocketAddrs},
};

use super::{
    Config, check,
    url::{self, Url},
};

/// `name=URL,name=URL`, as etcd reads it, but for URLs that cannot be used yet.
pub(super) fn read_cluster(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let cluster = parse_cluster(text).map_err(|error| format!("error setting up initial cluster: {error}"))?;
    cluster.values().try_for_each(|urls| check::refuse_tls_url("initial-cluster", urls))?;
    Ok(cluster)
}

/// URLs of one name are sorted, and repetitions are kept to be found.
fn parse_cluster(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut cluster: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        cluster.entry(name.into()).or_default().push(Url::parse(url)?);
    }
    cluster.values_mut().for_each(|urls| urls.sort());
    Ok(cluster)
}

fn write_cluster<'a>(cluster: impl Iterator<Item = (&'a String, &'a Vec<Url>)>) -> String {
    let mut pairs: Vec<String> =
        cluster.flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}"))).collect();
    pairs.sort();
    pairs.join(",")
}

/// The addresses of a host, by the system's resolver.
pub fn resolve(host: &str) -> Option<BTreeSet<IpAddr>> {
    Some((host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect())
}

impl Config {
    /// As [`Config::initial_cluster`] is written on the command line.
    pub fn initial_cluster_text(&self) -> String {
        write_cluster(self.initial_cluster.iter())
    }

    /// The same member with an initial cluster that was discovered, written as on the command line.
    pub fn with_initial_cluster(&self, text: &str) -> Result<Self, String> {
        Ok(Self { initial_cluster: read_cluster(text)?, ..self.clone() })
    }

    /// Whether this member can found the cluster: for an empty data directory and `--initial-cluster-state=new`.
    pub fn verify_bootstrap(&self, resolve: &dyn Fn(&str) -> Option<BTreeSet<IpAddr>>) -> Result<(), String> {
        let own = self.own_urls()?;
        self.advertised_as(own, resolve)?;
        self.no_url_twice()
    }

    /// Whether this member can join: for an empty data directory and `--initial-cluster-state=existing`.
    pub fn verify_join(&self) -> Result<(), String> {
        self.own_urls()?;
        self.no_url_twice()
    }

    fn own_urls(&self) -> Result<&[Url], String> {
        match self.initial_cluster.get(&self.name) {
            Some(urls) => Ok(urls),
            None => Err(format!("couldn't find local name {:?} in the initial cluster configuration", self.name)),
        }
    }

    fn no_url_twice(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        if self.initial_cluster.values().flatten().all(|url| seen.insert(url.as_str())) {
            return Ok(());
        }
        Err(format!("initial cluster {} has duplicate url", self.initial_cluster_text()))
    }

    /// Texts are compared first, then addresses: `localhost` and `127.0.0.1` are the same.
    fn advertised_as(&self, own: &[Url], resolve: &dyn Fn(&str) -> Option<BTreeSet<IpAddr>>) -> Result<(), String> {
        let advertised = &self.initial_advertise_peer_urls;
        let same = |(a, b): (&Url, &Url)| {
            let addresses = || Some((resolve(a.host())?, resolve(b.host())?));
            a == b || (a.port() == b.port() && addresses().is_some_and(|(a, b)| !a.is_disjoint(&b)))
        };
        if own.len() == advertised.len() && own.iter().zip(advertised).all(same) {
            return Ok(());
        }
        let written = url::join(advertised);
        let without = |from: &[Url], other: &[Url]| -> Vec<String> {
            from.iter().filter(|url| !other.contains(url)).map(Url::to_string).collect()
        };
        let missing = without(own, advertised);
        if !missing.is_empty() {
            let missing: Vec<String> = missing.iter().map(|url| format!("{}={url}", self.name)).collect();
            return Err(format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={written} \
                 (resolved urls: {:?} != {:?})",
                missing.join(","),
                written,
                url::join(own),
            ));
        }
        let cluster = write_cluster(std::iter::once((&self.name, advertised)));
        let extra = without(advertised, own).join(",");
        Err(format!("--initial-advertise-peer-urls has {extra} but missing from --initial-cluster={cluster}"))
    }
}

/// Go's words for the usual reasons of a file not to open.
pub(super) fn go_io_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        _ => error.to_string(),
    }
}
