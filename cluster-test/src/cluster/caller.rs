//! Which member is at the other end of a connection on loopback: its port leads to its socket, that to its process, and that to its name.

use std::fs;

/// Names of members are `m0`, `m1`, ...: the number of the one that called from `port`; `None` if it has gone.
pub(super) fn member_at(port: u16) -> Option<usize> {
    let socket = format!("socket:[{}]", inode_of(&fs::read_to_string("/proc/net/tcp").ok()?, port)?);
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str());
        if files.flatten().any(holds) {
            return name_in(&fs::read(process.path().join("cmdline")).ok()?);
        }
    }
    None
}

/// Lines of the table: number, local address and port in hexadecimal, remote ones, state, ..., the tenth field is the inode.
fn inode_of(table: &str, port: u16) -> Option<&str> {
    let local = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(1)?.ends_with(&local).then(|| fields.nth(7)).flatten().filter(|inode| *inode != "0")
    })
}

fn name_in(command_line: &[u8]) -> Option<usize> {
    let words = command_line.split(|byte| *byte == 0);
    words.filter_map(|word| std::str::from_utf8(word).ok()?.strip_prefix("--name=m")?.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_socket_and_name() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 20 4 30 10 -1\n   \
             1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n";
        assert_eq!(inode_of(table, 50_000), Some("4712"));
        assert_eq!(inode_of(table, 8080), Some("4711"));
        assert_eq!(inode_of(table, 1), None);
        assert_eq!(name_in(b"/bin/etcd\0--name=m12\0--x=y\0"), Some(12));
        assert_eq!(name_in(b"bash\0"), None);
    }
}
