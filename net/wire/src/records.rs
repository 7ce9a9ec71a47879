use bytes::{Bytes, BytesMut};

/// Record batches as a list of slices, so that a Fetch response is sent without being copied together.
/// Equality is by content, whatever the cuts.
///
/// Some of the batches may lie elsewhere, such as in a file: then they are known here by their length and a token, and
/// whoever sends the message puts the bytes into their place (see [`crate::encode_response_around`]).
#[derive(Clone, Debug, Default)]
pub struct Records {
    pieces: Vec<Piece>,
}

/// Some of the bytes.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// In memory, at least one.
    Here(Bytes),
    /// So many elsewhere, at least one.
    Elsewhere { token: usize, len: usize },
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Here(bytes) => bytes.len(),
            Piece::Elsewhere { len, .. } => *len,
        }
    }

    fn bytes(&self) -> &Bytes {
        match self {
            Piece::Here(bytes) => bytes,
            Piece::Elsewhere { .. } => panic!("these records are not in memory"),
        }
    }
}

impl Records {
    /// No bytes.
    pub const fn new() -> Self {
        Self { pieces: Vec::new() }
    }

    /// `len` bytes that are not here; `token` is for whoever has them.
    pub fn elsewhere(token: usize, len: usize) -> Self {
        let pieces = if len > 0 { vec![Piece::Elsewhere { token, len }] } else { Vec::new() };
        Self { pieces }
    }

    /// Appends a slice; an empty one is dropped.
    pub fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.pieces.push(Piece::Here(segment));
        }
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What they consist of, in order.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// One contiguous slice: free for up to one slice, a copy otherwise.
    ///
    /// # Panics
    /// When some of the bytes are not here.
    pub fn to_bytes(&self) -> Bytes {
        match self.pieces.as_slice() {
            [] => Bytes::new(),
            [only] => only.bytes().clone(),
            many => {
                let mut whole = BytesMut::with_capacity(self.len());
                many.iter().for_each(|piece| whole.extend_from_slice(piece.bytes()));
                whole.freeze()
            }
        }
    }
}

impl From<Bytes> for Records {
    fn from(segment: Bytes) -> Self {
        let mut records = Self::new();
        records.push(segment);
        records
    }
}

impl FromIterator<Bytes> for Records {
    fn from_iter<I: IntoIterator<Item = Bytes>>(segments: I) -> Self {
        let here = segments.into_iter().filter(|segment| !segment.is_empty()).map(Piece::Here);
        Self { pieces: here.collect() }
    }
}

/// Those that are not in memory are equal where they are of one token and length.
impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        enum Unit {
            Byte(u8),
            Elsewhere(usize, usize),
        }
        fn units(records: &Records) -> impl Iterator<Item = Unit> + '_ {
            records.pieces.iter().flat_map(|piece| {
                let (here, elsewhere) = match piece {
                    Piece::Here(bytes) => (Some(bytes), None),
                    Piece::Elsewhere { token, len } => (None, Some(Unit::Elsewhere(*token, *len))),
                };
                here.into_iter().flatten().map(|byte| Unit::Byte(*byte)).chain(elsewhere)
            })
        }
        let same = |(one, two): (Unit, Unit)| match (one, two) {
            (Unit::Byte(one), Unit::Byte(two)) => one == two,
            (Unit::Elsewhere(token, len), Unit::Elsewhere(other, others)) => (token, len) == (other, others),
            _ => false,
        };
        self.len() == other.len() && units(self).zip(units(other)).all(same)
    }
}
