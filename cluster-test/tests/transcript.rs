//! Every golden script of cluster-test/transcripts, by the real etcdctl, against real etcd and against ours: both have to print what
//! the file says. `UPDATE=1` writes the files anew, from real etcd only.

use std::path::Path;
use std::{env, fs};

use anyhow::{Context as _, Result};
use cluster_test::{programs, transcript};

fn on_etcd(name: &str) -> Result<()> {
    let golden = golden(name)?;
    let performed = transcript::perform(&golden, programs::etcd()?).context("run it on real etcd")?;
    if env::var_os("UPDATE").is_some() {
        return fs::write(&golden, performed).context("write the file");
    }
    transcript::compare(&golden, &performed).context("real etcd")
}

fn on_ours(name: &str) -> Result<()> {
    let golden = golden(name)?;
    let performed = transcript::perform(&golden, programs::quorate()?).context("run it on quorate")?;
    transcript::compare(&golden, &performed).context("quorate")
}

fn golden(name: &str) -> Result<std::path::PathBuf> {
    let (_, path) = transcript::all()?.into_iter().find(|(found, _)| found == name).context("find the script")?;
    Ok(path)
}

macro_rules! scripts {
    ($($name:ident)*) => {
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];

        $(mod $name {
            use super::*;

            #[test]
            fn etcd_prints_what_the_file_says() -> Result<()> {
                on_etcd(stringify!($name))
            }

            #[test]
            fn quorate_prints_what_etcd_does() -> Result<()> {
                on_ours(stringify!($name))
            }
        })*
    };
}

scripts! {
    admin alarm cluster cluster_change compaction del downgrade endpoint get get_formats get_sort get_stream lease lock member put snapshot status txn users watch watch_many
}

#[test]
fn no_script_is_left_out() -> Result<()> {
    let found: Vec<String> = transcript::all()?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, SCRIPTS, "the list in {} is of the files, in order", Path::new(file!()).display());
    Ok(())
}
