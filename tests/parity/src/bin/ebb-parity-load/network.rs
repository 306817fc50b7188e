//! Traffic: a receiver that says when it listens, and a sender. Both print the bytes of payload.
//!
//! Datagrams are answered one by one, so that none is lost where nobody waits for it; but for a flood, whose sender minds
//! no loss.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};

const BLOCK: usize = 64 << 10;
const DATAGRAM: usize = 1400;

/// Receives from one sender until it has sent everything.
pub fn receive(protocol: &str, address: &str) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{address}: {error}");
    let mut received = 0;
    if protocol == "tcp" {
        let listener = TcpListener::bind(address).map_err(told)?;
        println!("listening");
        let (mut stream, _) = listener.accept().map_err(told)?;
        let mut block = vec![0; BLOCK];
        loop {
            match stream.read(&mut block).map_err(told)? {
                0 => break,
                read => received += read,
            }
        }
    } else {
        let socket = UdpSocket::bind(address).map_err(told)?;
        println!("listening");
        let mut block = [0; DATAGRAM];
        loop {
            let (read, from) = socket.recv_from(&mut block).map_err(told)?;
            if read == 0 {
                break;
            }
            received += read;
            socket.send_to(&[1], from).map_err(told)?;
        }
    }
    println!("received={received}");
    Ok(())
}

/// Sends so many bytes.
pub fn send(protocol: &str, address: &str, bytes: u64) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{address}: {error}");
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    if protocol == "tcp" {
        let mut stream = TcpStream::connect(address).map_err(told)?;
        let block = vec![3; BLOCK];
        while left > 0 {
            let now = left.min(BLOCK);
            stream.write_all(&block[..now]).map_err(told)?;
            left -= now;
        }
        stream.shutdown(Shutdown::Write).map_err(told)?;
        // The other end closes when it has everything.
        stream.read_to_end(&mut Vec::new()).map_err(told)?;
    } else {
        let any = if address.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = UdpSocket::bind(any).map_err(told)?;
        socket.connect(address).map_err(told)?;
        while left > 0 {
            let now = left.min(DATAGRAM);
            socket.send(&[3; DATAGRAM][..now]).map_err(told)?;
            socket.recv(&mut [0; 1]).map_err(told)?;
            left -= now;
        }
        socket.send(&[]).map_err(told)?;
    }
    println!("sent={bytes}");
    Ok(())
}

/// Sends datagrams that nobody answers, as fast as it can, until it is ended. It ends itself if one cannot be sent.
pub fn flood(address: &str) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{address}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(told)?;
    loop {
        // Not connected, since it would be told that nobody listens.
        socket.send_to(&[3; DATAGRAM], address).map_err(told)?;
    }
}
