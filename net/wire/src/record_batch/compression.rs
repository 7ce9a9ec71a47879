use std::io::{self, Read, Write};

use bytes::Bytes;

/// What xerial's framing of snappy starts with.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, version and lowest compatible version.
const XERIAL_HEADER_BYTES: usize = 16;
/// Uncompressed bytes in one of our xerial blocks.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// zstd frames may ask for a window of 2^27 bytes at most, and of 2^23 in any case (levels up to 19).
const ZSTD_WINDOW_LOG: std::ops::RangeInclusive<u32> = 23..=27;

/// The compressions of a record batch, by Kafka's ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum Compression {
    /// As it is.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy, raw or in xerial's framing (contract L4); we write xerial's.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// Why data cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The result would be larger than allowed.
    #[error("more than {0} bytes after decompression")]
    TooLarge(usize),
    /// The data is not what its compression writes.
    #[error("corrupt {name} data: {reason}")]
    Corrupt {
        /// The compression.
        name: &'static str,
        /// What its decoder says.
        reason: String,
    },
}

impl Compression {
    /// Every compression.
    pub const ALL: [Compression; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The compression of an id (0 to 4).
    pub const fn from_id(id: i8) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// Kafka's id.
    pub const fn id(self) -> i8 {
        self as i8
    }

    /// Kafka's name, as in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The compression of one of Kafka's names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.name() == name)
    }

    /// Decompresses into at most `bytes_max` bytes; without compression a slice of `data`.
    pub fn decompress(self, data: &Bytes, bytes_max: usize) -> Result<Bytes, CompressionError> {
        match self {
            Self::None if data.len() > bytes_max => Err(CompressionError::TooLarge(bytes_max)),
            Self::None => Ok(data.clone()),
            Self::Gzip => self.read_all(flate2::bufread::MultiGzDecoder::new(&data[..]), bytes_max),
            Self::Snappy => match data.strip_prefix(XERIAL_MAGIC) {
                Some(_) => unframe_xerial(data, bytes_max),
                None => {
                    let mut out = Vec::new();
                    snappy_block(data, &mut out, bytes_max)?;
                    Ok(out.into())
                }
            },
            Self::Lz4 => self.read_all(lz4_flex::frame::FrameDecoder::new(&data[..]), bytes_max),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&data[..])
                    .map_err(|error| self.corrupt(error))?;
                let log = bytes_max.max(1).ilog2().clamp(*ZSTD_WINDOW_LOG.start(), *ZSTD_WINDOW_LOG.end());
                decoder.window_log_max(log).map_err(|error| self.corrupt(error))?;
                self.read_all(decoder, bytes_max)
            }
        }
    }

    /// Compresses `data`, in the framing Kafka's own clients read.
    pub fn compress(self, data: &[u8]) -> Vec<u8> {
        let written = match self {
            Self::None => Ok(data.to_vec()),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(data).and_then(|()| encoder.finish())
            }
            Self::Snappy => Ok(frame_xerial(data)),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(data).and_then(|()| encoder.finish().map_err(io::Error::other))
            }
            Self::Zstd => zstd::bulk::compress(data, ZSTD_LEVEL),
        };
        written.expect("compressing in memory does not fail")
    }

    fn read_all(self, decoder: impl Read, bytes_max: usize) -> Result<Bytes, CompressionError> {
        let mut out = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        decoder.take(limit).read_to_end(&mut out).map_err(|error| self.corrupt(error))?;
        if out.len() > bytes_max {
            return Err(CompressionError::TooLarge(bytes_max));
        }
        Ok(out.into())
    }

    fn corrupt(self, reason: impl ToString) -> CompressionError {
        CompressionError::Corrupt { name: self.name(), reason: reason.to_string() }
    }
}

/// Appends one raw snappy block, as long as `out` stays within `bytes_max`.
fn snappy_block(block: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), CompressionError> {
    let corrupt = |error: snap::Error| Compression::Snappy.corrupt(error);
    let size = snap::raw::decompress_len(block).map_err(corrupt)?;
    let start = out.len();
    if size > bytes_max - start {
        return Err(CompressionError::TooLarge(bytes_max));
    }
    out.resize(start + size, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(corrupt)?;
    Ok(())
}

/// xerial's framing: a header, then blocks behind their length as a big-endian int32.
fn unframe_xerial(data: &[u8], bytes_max: usize) -> Result<Bytes, CompressionError> {
    let cut = || Compression::Snappy.corrupt("xerial frame is cut");
    let mut rest = data.get(XERIAL_HEADER_BYTES..).ok_or_else(cut)?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        // Concatenated streams repeat the header.
        if rest.starts_with(XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER_BYTES..).ok_or_else(cut)?;
            continue;
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (block, after) = after.split_at_checked(length).ok_or_else(cut)?;
        snappy_block(block, &mut out, bytes_max)?;
        rest = after;
    }
    Ok(out.into())
}

fn frame_xerial(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + data.len() / 2);
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block).expect("a block is smaller than 4 GiB");
        out.extend_from_slice(&(compressed.len() as i32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    out
}
