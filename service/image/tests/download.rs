//! Files of a catalogue from a server of the test's own: whole, broken off, another one, or not there.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use banger_image::{Artifact, Digest, Download, ImageError, Limits, Puller, Silent};
use banger_model::Bytes;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How the server answers.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Whole,
    /// Each connection brings a third and breaks off.
    Breaks,
    /// The same, and it knows no ranges.
    BreaksWithoutRanges,
    /// First it is too busy.
    Busy,
    Missing,
    /// It never sends the last byte, and keeps the connection.
    Stalls,
    /// More than it should.
    Longer,
}

/// Serves `body`; tells its address and how many requests there were.
fn serve(body: Vec<u8>, way: Way) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/file", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let body = body.clone();
            // A client that goes away is its own affair.
            thread::spawn(move || drop(answer(client, &body, way, number)));
        }
    });
    (address, requests)
}

fn answer(mut client: TcpStream, body: &[u8], way: Way, number: usize) -> std::io::Result<()> {
    let mut from = 0;
    for line in BufReader::new(client.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let total = body.len();
    let status = match way {
        Way::Missing => "404 Not Found\r\nContent-Length: 0".to_owned(),
        Way::Busy if number == 0 => "503 Busy\r\nRetry-After: 0\r\nContent-Length: 0".to_owned(),
        Way::Longer => format!("200 OK\r\nContent-Length: {}", total + 1),
        Way::BreaksWithoutRanges => {
            from = 0;
            format!("200 OK\r\nContent-Length: {total}")
        }
        _ if from > 0 => {
            let left = total - from;
            format!(
                "206 Partial\r\nContent-Range: bytes {from}-{}/{total}\r\nContent-Length: {left}",
                total - 1
            )
        }
        _ => format!("200 OK\r\nContent-Length: {total}"),
    };
    let refused = !status.starts_with('2');
    client.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n").as_bytes())?;
    if refused {
        return Ok(());
    }
    let end = match way {
        Way::Breaks => (from + total / 3 + 1).min(total),
        Way::BreaksWithoutRanges => ((number + 1) * (total / 3 + 1)).min(total),
        Way::Stalls => total - 1,
        _ => total,
    };
    client.write_all(&body[from..end])?;
    if way == Way::Stalls {
        // Until the client goes away.
        std::io::copy(&mut client, &mut std::io::sink())?;
    }
    Ok(())
}

fn body() -> Vec<u8> {
    (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(3_000_000).collect()
}

fn artifact(url: &str, body: &[u8]) -> Artifact {
    Artifact { url: url.parse().unwrap(), digest: Digest::of(body), size: Bytes(body.len() as u64) }
}

fn limits() -> Limits {
    let backoff = Duration::from_millis(1);
    Limits { backoff, stall: Duration::from_millis(300), retries: 3, ..Limits::default() }
}

/// Reads it all, or `most` bytes of it, and settles.
async fn read(artifact: Artifact, most: u64, cancel: CancellationToken) -> Result<Vec<u8>, ImageError> {
    let folder = tempfile::tempdir().unwrap();
    let puller = Puller::new(folder.path().join("blobs"), limits()).unwrap();
    let mut download: Download = puller.download(&artifact, Arc::new(Silent), &cancel);
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let read = download.by_ref().take(most).read_to_end(&mut bytes);
        let read = read.map(|_| bytes).map_err(|error| error.downcast::<ImageError>().unwrap());
        download.settle(read, |_| false)
    })
    .await
    .unwrap()
}

async fn whole(url: &str, body: &[u8]) -> Result<Vec<u8>, ImageError> {
    read(artifact(url, body), u64::MAX, CancellationToken::new()).await
}

#[tokio::test]
async fn broken_connections_are_gone_on_with() {
    let body = body();
    for (way, least) in [(Way::Whole, 1), (Way::Breaks, 3), (Way::BreaksWithoutRanges, 3), (Way::Busy, 2)] {
        let (url, requests) = serve(body.clone(), way);
        assert!(whole(&url, &body).await.unwrap() == body);
        assert!(requests.load(Ordering::SeqCst) >= least);
    }
}

#[tokio::test]
async fn another_file_is_told_from_the_pinned_one_however_much_was_read() {
    let mut other = body();
    other[2_999_999] ^= 1;
    let (url, _) = serve(other, Way::Whole);
    for most in [u64::MAX, 10] {
        let error = read(artifact(&url, &body()), most, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    }
    let (url, _) = serve(body(), Way::Longer);
    let error = whole(&url, &body()).await.unwrap_err();
    assert!(error.to_string().contains("3000001 bytes instead of 3000000"), "{error}");
    let short = &body()[..2_000_000];
    let (url, _) = serve(short.to_vec(), Way::Whole);
    assert!(matches!(whole(&url, &body()).await, Err(ImageError::DigestMismatch { .. })));
}

#[tokio::test]
async fn what_cannot_be_had_is_said() {
    let (url, requests) = serve(body(), Way::Missing);
    let error = whole(&url, &body()).await.unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("/file"), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 1, "what is not there is not asked for again");
    let (url, _) = serve(body(), Way::Stalls);
    let error = whole(&url, &body()).await.unwrap_err();
    assert!(matches!(error, ImageError::RegistryUnavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_cancelled_one_ends_at_once() {
    let (url, _) = serve(body(), Way::Stalls);
    let cancel = CancellationToken::new();
    let reading = tokio::spawn(read(artifact(&url, &body()), u64::MAX, cancel.clone()));
    cancel.cancel();
    assert!(matches!(reading.await.unwrap(), Err(ImageError::Cancelled)));
}
