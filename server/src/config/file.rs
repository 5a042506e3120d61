//! The configuration file: YAML (and so JSON), keys as the flags are named but for four nested ones.

use serde_norway::Value as Yaml;

use super::{
    flag::Group,
    table::{self, FLAGS},
    value::Settings,
};

/// Where the file's name of a flag is not the flag's own.
const NESTED: &[(&str, &str)] = &[
    ("client-transport-security.cert-file", "cert-file"),
    ("client-transport-security.key-file", "key-file"),
    ("client-transport-security.client-cert-file", "client-cert-file"),
    ("client-transport-security.client-key-file", "client-key-file"),
    ("client-transport-security.client-cert-auth", "client-cert-auth"),
    ("client-transport-security.trusted-ca-file", "trusted-ca-file"),
    ("client-transport-security.auto-tls", "auto-tls"),
    ("client-transport-security.allowed-hostname", "client-cert-allowed-hostname"),
    // There is no flag of it; it is refused as its neighbour is.
    ("client-transport-security.allowed-cn", "client-cert-allowed-hostname"),
    ("peer-transport-security.cert-file", "peer-cert-file"),
    ("peer-transport-security.key-file", "peer-key-file"),
    ("peer-transport-security.client-cert-file", "peer-client-cert-file"),
    ("peer-transport-security.client-key-file", "peer-client-key-file"),
    ("peer-transport-security.client-cert-auth", "peer-client-cert-auth"),
    ("peer-transport-security.trusted-ca-file", "peer-trusted-ca-file"),
    ("peer-transport-security.auto-tls", "peer-auto-tls"),
    ("peer-transport-security.allowed-cn", "peer-cert-allowed-cn"),
    ("peer-transport-security.allowed-hostname", "peer-cert-allowed-hostname"),
    ("peer-transport-security.skip-client-san-verification", "peer-skip-client-san-verification"),
    ("discovery-config.token", "discovery-token"),
    ("discovery-config.endpoints", "discovery-endpoints"),
    ("discovery-config.dial-timeout", "discovery-dial-timeout"),
    ("discovery-config.request-timeout", "discovery-request-timeout"),
    ("discovery-config.keepalive-time", "discovery-keepalive-time"),
    ("discovery-config.keepalive-timeout", "discovery-keepalive-timeout"),
    ("discovery-config.secure.insecure-transport", "discovery-insecure-transport"),
    ("discovery-config.secure.insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
    ("discovery-config.secure.cert", "discovery-cert"),
    ("discovery-config.secure.key", "discovery-key"),
    ("discovery-config.secure.cacert", "discovery-cacert"),
    ("discovery-config.auth.username", "discovery-user"),
    ("discovery-config.auth.password", "discovery-password"),
    ("socket-options.reuse-port", "socket-reuse-port"),
    ("socket-options.reuse-address", "socket-reuse-address"),
];

/// The settings, and the keys that mean nothing (etcd passes over them in silence).
pub(super) fn read(text: &str) -> Result<(Settings, Vec<String>), String> {
    let yaml: Yaml = serde_norway::from_str(text).map_err(|e| e.to_string())?;
    let mut leaves = Vec::new();
    match &yaml {
        Yaml::Null => {}
        Yaml::Mapping(_) => flatten("", &yaml, &mut leaves)?,
        _ => return Err("the file must hold a mapping of flag names to values".into()),
    }
    let mut settings = Settings::defaults();
    let mut unknown = Vec::new();
    for (path, value) in leaves {
        let nested = NESTED.iter().find(|(from, _)| from.eq_ignore_ascii_case(&path));
        let flag = match nested {
            Some((_, name)) => table::find(name),
            None => FLAGS.iter().find(|flag| flag.name.eq_ignore_ascii_case(&path)),
        };
        match flag {
            Some(flag) if !matches!(flag.group, Group::Process | Group::Ignored) => {
                settings.put_yaml(flag, value).map_err(|e| format!("{path}: {e}"))?;
            }
            _ => unknown.push(path),
        }
    }
    Ok((settings, unknown))
}

fn flatten<'a>(prefix: &str, yaml: &'a Yaml, leaves: &mut Vec<(String, &'a Yaml)>) -> Result<(), String> {
    let Yaml::Mapping(mapping) = yaml else {
        leaves.push((prefix.into(), yaml));
        return Ok(());
    };
    for (key, value) in mapping {
        let Some(key) = key.as_str() else { return Err(format!("a key under {prefix:?} is not a text")) };
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        let opens_mapping = NESTED.iter().any(|(from, _)| from.starts_with(&format!("{path}.")));
        if opens_mapping && !value.is_mapping() && !value.is_null() {
            return Err(format!("{path}: expected a mapping"));
        }
        flatten(&path, value, leaves)?;
    }
    Ok(())
}
