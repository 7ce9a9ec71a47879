use bytes::{Bytes, BytesMut};

/// Record batches as a list of slices, so that a Fetch response is sent without being copied together.
/// Equality is by content, whatever the cuts.
#[derive(Clone, Debug, Default)]
pub struct Records {
    segments: Vec<Bytes>,
}

impl Records {
    /// No bytes.
    pub const fn new() -> Self {
        Self { segments: Vec::new() }
    }

    /// Appends a slice; an empty one is dropped.
    pub fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.segments.push(segment);
        }
    }

    /// Bytes in all segments.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The slices in order, none of them empty.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// One contiguous slice: free for up to one segment, a copy otherwise.
    pub fn to_bytes(&self) -> Bytes {
        match self.segments.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            many => {
                let mut whole = BytesMut::with_capacity(self.len());
                many.iter().for_each(|segment| whole.extend_from_slice(segment));
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
        Self { segments: segments.into_iter().filter(|segment| !segment.is_empty()).collect() }
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |records: &Self| records.segments.clone().into_iter().flatten();
        self.len() == other.len() && bytes(self).eq(bytes(other))
    }
}
