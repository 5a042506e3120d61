//! etcd's feature gates: `--feature-gates=InitialCorruptCheck=true,AllBeta=false`.

use std::collections::BTreeMap;

use super::go;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateStage {
    Alpha,
    Beta,
}

#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub name: &'static str,
    pub stage: GateStage,
    pub default: bool,
}

/// The gates of etcd 3.7, by name. The first two switch every gate of their stage that was not named itself.
pub const GATES: &[Gate] = &[
    Gate { name: "AllAlpha", stage: GateStage::Alpha, default: false },
    Gate { name: "AllBeta", stage: GateStage::Beta, default: false },
    Gate { name: "CompactHashCheck", stage: GateStage::Alpha, default: false },
    Gate { name: "FastLeaseKeepAlive", stage: GateStage::Beta, default: true },
    Gate { name: "InitialCorruptCheck", stage: GateStage::Alpha, default: false },
    Gate { name: "LeaseCheckpoint", stage: GateStage::Alpha, default: false },
    Gate { name: "LeaseCheckpointPersist", stage: GateStage::Alpha, default: false },
    Gate { name: "PriorityRequest", stage: GateStage::Alpha, default: false },
    Gate { name: "SetMemberLocalAddr", stage: GateStage::Alpha, default: false },
    Gate { name: "StopGRPCServiceOnDefrag", stage: GateStage::Alpha, default: false },
    Gate { name: "TxnModeWriteWithSharedBuffer", stage: GateStage::Beta, default: true },
];

/// The gates that were named; the others have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: BTreeMap<&'static str, bool>,
}

impl FeatureGates {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut set = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", pair.trim())),
            };
            let Some(value) = go::parse_bool(value) else {
                return Err(format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
                ));
            };
            match GATES.iter().find(|gate| gate.name == name) {
                Some(gate) => set.insert(gate.name, value),
                None => return Err(format!("unrecognized feature gate: {name}")),
            };
        }
        Ok(Self { set })
    }

    pub fn enabled(&self, name: &str) -> bool {
        let Some(gate) = GATES.iter().find(|gate| gate.name == name) else { return false };
        let all = match gate.stage {
            GateStage::Alpha => "AllAlpha",
            GateStage::Beta => "AllBeta",
        };
        self.set.get(name).or_else(|| self.set.get(all)).copied().unwrap_or(gate.default)
    }

    /// As it is written on the command line.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        self.set.iter().map(|(name, on)| (*name, *on))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_and_switched_as_etcd_does() {
        let gates = FeatureGates::parse("AllAlpha=true, LeaseCheckpoint = false ,,").unwrap();
        assert!(gates.enabled("InitialCorruptCheck") && gates.enabled("FastLeaseKeepAlive"));
        assert!(!gates.enabled("LeaseCheckpoint") && !gates.enabled("nothing"));
        for (text, error) in [
            ("x=true", "unrecognized feature gate: x"),
            ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
            (
                "LeaseCheckpoint=q",
                "invalid value of LeaseCheckpoint=q, err: strconv.ParseBool: parsing \"q\": invalid syntax",
            ),
        ] {
            assert_eq!(FeatureGates::parse(text).unwrap_err(), error);
        }
    }
}
