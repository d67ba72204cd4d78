//! HTTP by hand, for requests that no client would send.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::client::{Answer, Client};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection to a server.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to the server of a client.
    pub fn to(client: &Client) -> Self {
        let address = client.base().strip_prefix("http://").expect("a server on this machine");
        let stream = TcpStream::connect(address).expect("the server listens");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes. Whether they arrive is for the answer to tell.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Sends `chunk` as a chunk of the body again and again, with a pause after each, until there is an answer. Returns
    /// how many bytes of body were sent before it.
    pub fn stream_until_answered(&mut self, chunk: &[u8], pause: Duration) -> usize {
        let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        let started = Instant::now();
        let mut sent = 0;
        while !self.is_answered() {
            assert!(started.elapsed() < PATIENCE, "not answered after {sent} bytes of body");
            if self.stream.write_all(&framed).is_err() {
                break;
            }
            sent += chunk.len();
            std::thread::sleep(pause);
        }
        sent
    }

    fn is_answered(&mut self) -> bool {
        self.receive_for(Duration::from_millis(1));
        !self.received.is_empty()
    }

    /// Receives what comes within that time. Whether more may come.
    fn receive_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a time");
        let mut buffer = [0; 1 << 16];
        match self.stream.read(&mut buffer) {
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                n > 0
            }
            Err(e) => {
                matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            }
        }
    }

    /// Everything received within that time, or until the server hangs up.
    pub fn text_within(&mut self, time: Duration) -> String {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.receive_for(left) {
                return String::from_utf8_lossy(&self.received).into_owned();
            }
        }
    }

    /// The next answer that is not merely "100 Continue", or `None` if the server hangs up without one.
    pub fn answer(&mut self) -> Option<Answer> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match parse(&self.received) {
                Some((answer, len)) => {
                    self.received.drain(..len);
                    if answer.status != 100 {
                        return Some(answer);
                    }
                }
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    assert!(!left.is_zero(), "the request was not answered");
                    if !self.receive_for(left) && parse(&self.received).is_none() {
                        return None;
                    }
                }
            }
        }
    }
}

/// The answer to one request, or `None` if the server hangs up without one.
pub fn exchange(client: &Client, request: impl AsRef<[u8]>) -> Option<Answer> {
    Connection::to(client).send(request).answer()
}

/// An answer at the start of `bytes`, and how long it is. The server declares the length of all its answers.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let head_len = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a value"));
    }
    let body_len = headers
        .get("content-length")
        .map_or(0, |len| len.to_str().ok().and_then(|len| len.parse().ok()).expect("a length"));
    let body = bytes.get(head_len..head_len + body_len)?.to_vec();
    Some((Answer { status, headers, body }, head_len + body_len))
}
