//! A name server that knows a few SRV records, and that every host is 127.0.0.1. As much of DNS as a resolver asks of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PORT: u16 = 53;
const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;
const TTL_SECS: u32 = 1;
/// The name of the answer: that of the question, which stands behind the header.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, HEADER_BYTES as u8];
const FLAGS_FOUND: [u8; 2] = [0x85, 0x80];
const FLAGS_NO_SUCH_NAME: [u8; 2] = [0x85, 0x83];
/// Between two looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// `service` has a record that names `target` and `port`. Priority and weight are 0.
#[derive(Clone)]
pub(super) struct Srv {
    pub(super) service: String,
    pub(super) target: String,
    pub(super) port: u16,
}

pub(super) struct Responder {
    ip: Ipv4Addr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// On a loopback address of its own, as resolv.conf has no ports.
    pub(super) fn start(records: Vec<Srv>) -> io::Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let ip = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low.max(1));
        let socket = UdpSocket::bind((ip, PORT))?;
        socket.set_read_timeout(Some(LOOK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, asker)) = socket.recv_from(&mut buffer)
                    && let Some(answer) = answer(&buffer[..length], &records)
                {
                    // Who has gone away asks again.
                    let _ = socket.send_to(&answer, asker);
                }
            }
        });
        Ok(Self { ip, stop, thread: Some(thread) })
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.ip.into()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// `None` for what is no question.
fn answer(question: &[u8], records: &[Srv]) -> Option<Vec<u8>> {
    let (name, end) = read_name(question)?;
    let kind = u16::from_be_bytes(question.get(end..end + 2)?.try_into().ok()?);
    let question = question.get(..end + 4)?;
    let name = name.to_ascii_lowercase();
    let found: Vec<&Srv> = records.iter().filter(|record| record.service == name).collect();
    let is_host = name.ends_with(".cluster.test") && !name.starts_with('_');
    let data: Vec<Vec<u8>> = match kind {
        TYPE_SRV => found.iter().map(|record| srv_data(record)).collect(),
        TYPE_A if is_host => vec![Ipv4Addr::LOCALHOST.octets().to_vec()],
        _ => Vec::new(),
    };
    let exists = is_host || !found.is_empty();
    let mut out = question[..2].to_vec();
    out.extend(if exists { FLAGS_FOUND } else { FLAGS_NO_SUCH_NAME });
    for count in [1, u16::try_from(data.len()).ok()?, 0, 0] {
        out.extend(count.to_be_bytes());
    }
    out.extend(&question[HEADER_BYTES..]);
    for data in data {
        out.extend(NAME_OF_QUESTION);
        out.extend(kind.to_be_bytes());
        out.extend(CLASS_IN.to_be_bytes());
        out.extend(TTL_SECS.to_be_bytes());
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

/// The first name asked for, without the dot at its end, and where it ends.
fn read_name(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER_BYTES);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).into_owned());
        at += length;
    }
}

fn srv_data(record: &Srv) -> Vec<u8> {
    let mut data = vec![0, 0, 0, 0];
    data.extend(record.port.to_be_bytes());
    for label in record.target.split('.') {
        data.push(u8::try_from(label.len()).expect("a label of a test is short"));
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}
