//! One packet in, at most one packet out: no state, no I/O.

use crate::zone::{Found, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// Longest answer over UDP, in bytes: it fits every network without fragments (<https://www.dnsflagday.net/2020/>).
pub const LONGEST_UDP: u16 = 1232;

/// Longest answer over UDP to who has not said that it takes more (RFC 1035, section 4.2.1).
const PLAIN_UDP: u16 = 512;

/// Length of a message's header, in bytes (RFC 1035, section 4.1.1).
const HEADER: usize = 12;

/// How a message came, which is how its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each; what does not fit is cut, and asked for again over TCP.
    Udp,
    /// As long as it needs to be.
    Tcp,
}

/// The answer to a packet; none for what is no query, so that two servers never talk to each other.
pub fn answer(zone: &Zone, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let query = match read(packet)? {
        Ok(query) => query,
        Err(failure) => return encode(&failure, PLAIN_UDP),
    };
    let mut answer = begin(&query);
    let longest = match (transport, &query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP, LONGEST_UDP),
    };
    match check(&query) {
        Ok(question) => fill(&mut answer, zone, question),
        Err(code) => answer.metadata.response_code = code,
    }
    encode(&answer, longest)
}

/// The answer to whoever is not served: no longer than what was asked.
pub fn refuse(packet: &[u8]) -> Option<Vec<u8>> {
    let mut answer = match read(packet)? {
        Ok(query) => begin(&query),
        Err(failure) => failure,
    };
    answer.metadata.response_code = ResponseCode::Refused;
    encode(&answer, PLAIN_UDP)
}

/// Reads a query; of what cannot be read, the answer that says so. None for answers, and for less than a header.
fn read(packet: &[u8]) -> Option<Result<Message, Message>> {
    let header = packet.first_chunk::<HEADER>()?;
    // QR, the first bit behind the id.
    if header[2] & 0x80 != 0 {
        return None;
    }
    Some(Message::from_vec(packet).map_err(|_| {
        let id = u16::from_be_bytes([header[0], header[1]]);
        let mut failure = Message::error_msg(id, OpCode::from_u8(header[2] >> 3 & 15), ResponseCode::FormErr);
        failure.metadata.recursion_desired = header[2] & 1 != 0;
        failure
    }))
}

/// An answer that says nothing yet.
fn begin(query: &Message) -> Message {
    let mut answer = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.checking_disabled = query.metadata.checking_disabled;
    answer.queries.clone_from(&query.queries);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LONGEST_UDP);
        answer.set_edns(edns);
    }
    answer
}

/// The question, if it is one that is answered here.
fn check(query: &Message) -> Result<&Query, ResponseCode> {
    if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Err(ResponseCode::BADVERS);
    }
    if query.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let [question] = query.queries.as_slice() else { return Err(ResponseCode::FormErr) };
    match (question.query_class, question.query_type) {
        // Nobody has to have all of it at once.
        (_, RecordType::AXFR | RecordType::IXFR) => Err(ResponseCode::Refused),
        (DNSClass::IN, _) => Ok(question),
        _ => Err(ResponseCode::Refused),
    }
}

fn fill(answer: &mut Message, zone: &Zone, question: &Query) {
    let (apex, node) = match zone.find(&question.name) {
        Found::Elsewhere => {
            answer.metadata.response_code = ResponseCode::Refused;
            return;
        }
        Found::Nothing { zone: apex } => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            (apex, None)
        }
        Found::Node { zone: apex, node } => (apex, Some(node)),
    };
    answer.metadata.authoritative = true;
    let records = node.map(|node| zone.records(node, &apex, &question.name, question.query_type));
    match records {
        Some(records) if !records.is_empty() => {
            answer.add_answers(records);
        }
        _ => {
            answer.add_authority(zone.negative(&apex));
        }
    }
}

fn encode(answer: &Message, longest: u16) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= usize::from(longest) {
        return Some(bytes);
    }
    answer.truncate().to_vec().ok().filter(|bytes| bytes.len() <= usize::from(longest))
}

#[cfg(test)]
mod tests;
