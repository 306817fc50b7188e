//! Loads on memory.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom, Write};

const PAGE: usize = 4096;

/// Touches so many fresh pages, round after round, and prints how many in all. From 32 MiB on they come straight from
/// the kernel each time.
pub fn pages(count: u64, rounds: u64) {
    for _ in 0..rounds {
        touch(usize::try_from(count).unwrap_or(0) * PAGE);
    }
    println!("touched={}", count * rounds);
}

/// Touches so many bytes and keeps them.
pub fn hog(bytes: u64) {
    println!("pid={}", std::process::id());
    touch(usize::try_from(bytes).unwrap_or(usize::MAX));
    println!("kept={bytes}");
}

fn touch(bytes: usize) {
    let mut block: Vec<u8> = Vec::with_capacity(bytes);
    for _ in 0..bytes / PAGE {
        block.extend_from_slice(&[1; PAGE]);
    }
    black_box(&block);
}

/// Writes a file and reads it, round after round, through the page cache.
pub fn cache(path: &str, bytes: u64, rounds: u64) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{path}: {error}");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(told)?;
    let mut block = vec![7; 1 << 20];
    for _ in 0..rounds {
        file.seek(SeekFrom::Start(0)).map_err(told)?;
        for _ in 0..bytes >> 20 {
            file.write_all(&block).map_err(told)?;
        }
        file.seek(SeekFrom::Start(0)).map_err(told)?;
        while file.read(&mut block).map_err(told)? > 0 {}
    }
    println!("rounds={rounds}");
    Ok(())
}
