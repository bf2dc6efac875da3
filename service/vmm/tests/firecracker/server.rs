//! The script behind a socket, as HTTP; and a guest's vsock, as far as connecting goes.

use crate::script::{Answer, Script};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// A listening script. Its threads end with their connections.
pub struct Server {
    pub socket: PathBuf,
    pub script: Arc<Mutex<Script>>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let script = Arc::new(Mutex::new(script));
        let (listener, shared) = (UnixListener::bind(&socket).unwrap(), Arc::clone(&script));
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let script = Arc::clone(&shared);
                thread::spawn(move || {
                    serve(connection, |method, path, body| script.lock().unwrap().answer(method, path, body))
                });
            }
        });
        Self { socket, script, _folder: folder }
    }
}

/// Requests one after the other, until the caller goes.
pub fn serve(connection: UnixStream, mut answer: impl FnMut(&str, &str, &[u8]) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let (method, path, body) = request(&mut reader)?;
        let (status, answer) = answer(&method, &path, &body);
        let body = answer.map(|answer| answer.to_string()).unwrap_or_default();
        let length = match status {
            204 => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        };
        let head = format!(
            "HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n{length}\r\n"
        );
        writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body.as_bytes())).ok()?;
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, body))
}

/// Answers one connection with bytes that are no script's.
pub fn answer_once(folder: &Path, bytes: Vec<u8>) -> PathBuf {
    let socket = folder.join("hostile.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        if let Ok((mut connection, _)) = listener.accept() {
            let mut asked = BufReader::new(connection.try_clone().unwrap());
            let _ = request(&mut asked);
            let _ = connection.write_all(&bytes);
        }
    });
    socket
}
