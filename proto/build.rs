//! .proto files -> Rust, without protoc: protox parses, prost and tonic generate.
//!
//! ```text
//! api/*.proto       etcd's      \
//!                                > one FileDescriptorSet -> OUT_DIR/<package>.rs and OUT_DIR/quorate.fds
//! internal/*.proto  ours        /
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost::Message as _;
use tonic_prost_build::FileDescriptorSet;

const ROOTS: [&str; 2] = ["api", "internal"];

/// Where the generator would cut an acronym in two: `peerURLs` becomes `peer_ur_ls`. The Rust name only; wire, JSON and
/// the published descriptors keep etcd's.
const RUST_NAMES: [(&str, &str); 2] = [("peerURLs", "peer_urls"), ("clientURLs", "client_urls")];

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for root in ROOTS {
        println!("cargo:rerun-if-changed={root}");
        files.extend(proto_files(Path::new(root))?);
    }
    println!("cargo:rerun-if-changed=build.rs");

    let described = protox::compile(files, ROOTS)?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("quorate.fds"), without_source(described.clone()).encode_to_vec())?;

    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .bytes(".")
        // What is sent twice is the same bytes twice.
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(with_rust_names(described))?;
    Ok(())
}

fn proto_files(root: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "proto") {
            println!("cargo:rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Comments and positions are for the generator; a program has no use for them.
fn without_source(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

fn with_rust_names(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for field in set.file.iter_mut().flat_map(|file| &mut file.message_type).flat_map(|message| &mut message.field) {
        if let Some((_, name)) = RUST_NAMES.iter().find(|(etcd, _)| field.name() == *etcd) {
            field.name = Some((*name).to_owned());
        }
    }
    set
}
