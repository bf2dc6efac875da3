//! How a connection begins, also one that an earlier process of ours left in the middle of a frame.

use crate::{AgentError, Violation};
use banger_guest::wire::{
    Decoder, GuestInfo, Hello, Kind, SYNC, StreamId, VERSION, Welcome, encode, pack, unpack,
};
use std::{convert::Infallible, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    time::sleep,
};

/// Most bytes that may come before the welcome: what an earlier connection can have left on the way, and more.
const MOST_STALE: usize = 4 << 20;

/// How long until the hello is said again, at first and at most.
const PATIENCE: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];

/// How much is read from a guest at once.
pub const READ: usize = 64 << 10;

/// Says hello and finds the welcome. The decoder then is in step with the guest.
pub async fn shake(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
) -> Result<(GuestInfo, Decoder), AgentError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(std::io::Error::other)?;
    let hello = pack(&Hello { oldest: VERSION, newest: VERSION, nonce }).map_err(Violation::from)?;
    let mut frame = Vec::new();
    encode(Kind::Hello, StreamId(0), &hello, &mut frame).map_err(Violation::from)?;
    // Both at once: a guest may have so much on its way that it takes nothing before it is rid of that.
    tokio::select! {
        found = listen(reader, nonce) => found,
        failed = say(writer, &frame) => failed.map(|never| match never {}),
    }
}

/// Says hello until somebody listens: a guest that notices the end of an earlier host after our hello forgets that.
async fn say(writer: &mut OwnedWriteHalf, hello: &[u8]) -> Result<Infallible, AgentError> {
    writer.write_all(&[0; SYNC]).await?;
    let [mut pause, longest] = PATIENCE;
    loop {
        writer.write_all(hello).await?;
        sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

async fn listen(reader: &mut OwnedReadHalf, nonce: [u8; 16]) -> Result<(GuestInfo, Decoder), AgentError> {
    let mut decoder = Decoder::hunting(Kind::Welcome);
    let mut buffer = vec![0; READ];
    let mut stale = 0;
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return Err(AgentError::Closed);
        }
        decoder.push(&buffer[..length]);
        while let Some(frame) = decoder.pop().map_err(Violation::from)? {
            // A welcome of another connection's, or no welcome at all inside somebody's output.
            match unpack::<Welcome>(&frame.payload) {
                Ok(welcome) if welcome.nonce == nonce => return Ok((check(welcome)?, decoder)),
                _ => decoder.hunt(Kind::Welcome),
            }
        }
        stale += length;
        if stale > MOST_STALE {
            return Err(Violation::NoWelcome(stale).into());
        }
    }
}

fn check(welcome: Welcome) -> Result<GuestInfo, Violation> {
    if welcome.version != VERSION {
        return Err(Violation::Version);
    }
    if !welcome.info.is_bounded() {
        return Err(Violation::Range("what the guest says about itself"));
    }
    Ok(welcome.info)
}
