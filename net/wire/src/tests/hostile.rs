//! Hostile bytes: nothing panics, and memory stays in proportion to the bytes that are really there.
// contract P3, and part 3 of the design: every length is checked before anything is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;

use super::random::{Gen, Random};
use crate::messages::*;
use crate::record_batch::{ProduceRules, batches, validate_produce};
use crate::{DecodeError, Message, Reader, RequestHeader, Writer};

/// Counts what the current thread allocates, so that tests may run side by side.
struct Counting;

thread_local! {
    static ALLOCATED_BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes unchanged to the system allocator; counting touches only a const-initialised
// thread-local without destructor, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.set(ALLOCATED_BYTES.get().saturating_add(layout.size()));
        // SAFETY: the caller keeps to `GlobalAlloc::alloc`'s contract, which is also System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` through `alloc` above, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that `f` allocates in total, freed or not.
fn allocated_bytes<T>(f: impl FnOnce() -> T) -> usize {
    let before = ALLOCATED_BYTES.get();
    drop(f());
    ALLOCATED_BYTES.get() - before
}

/// Decodes, and checks that no more was allocated than `frame` can justify: the array budget (32 bytes a byte
/// and 16 KiB), twice for vectors that grow, and the first reservation of each nested array.
fn decode_bounded<M: Message>(frame: &[u8], version: i16) -> Result<M, DecodeError> {
    let frame = Bytes::copy_from_slice(frame);
    let mut result = None;
    let len = frame.len();
    let allocated = allocated_bytes(|| result = Some(M::decode(&mut Reader::new(frame), version)));
    let allowed = 4 * (32 * len + 16 * 1024);
    assert!(allocated <= allowed, "{} v{version}: {allocated} bytes allocated for {len}", M::NAME);
    result.expect("decoded")
}

fn encoded<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut w = Writer::new();
    message.encode(&mut w, version);
    w.finish().concat()
}

fn attack<M: Message + Random>() {
    // What claims a huge length, as int32, int16, and varint; then null and negative ones.
    let lies: [&[u8]; 7] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x7f, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0x7f],
        &[0],
    ];
    for version in M::VERSIONS {
        for seed in 0..3 {
            let whole = encoded(&M::random(&mut Gen::new(seed), version), version);
            for cut in 0..whole.len() {
                let result = decode_bounded::<M>(&whole[..cut], version);
                assert!(result.is_err(), "{} v{version} seed {seed} cut at {cut}", M::NAME);
            }
            // At most some hundred places, or large byte fields would take all the time.
            for place in (0..whole.len()).step_by(1 + whole.len() / 300) {
                for lie in lies {
                    let mut forged = whole.clone();
                    let end = forged.len().min(place + lie.len());
                    forged[place..end].copy_from_slice(&lie[..end - place]);
                    let _ = decode_bounded::<M>(&forged, version);
                    forged.truncate(end);
                    let _ = decode_bounded::<M>(&forged, version);
                }
            }
        }
    }
}

#[test]
fn hostile_lengths_of_every_api_stay_bounded() {
    macro_rules! api {
        ($key:ident, $request:ident, $response:ident) => {
            attack::<$request>();
            attack::<$response>();
        };
    }
    macro_rules! data {
        ($message:ident) => {
            attack::<$message>();
        };
    }
    for_each_api!(api);
    for_each_data!(data);
}

#[test]
fn random_bytes_stay_bounded() {
    let mut g = Gen::new(1);
    for _ in 0..20_000 {
        let len = g.below(200);
        // Mostly small numbers, which look like lengths.
        let frame: Vec<u8> =
            (0..len).map(|_| if g.one_in(3) { g.next() as u8 } else { g.below(4) as u8 }).collect();
        let frame = Bytes::from(frame);
        let allocated = allocated_bytes(|| {
            let _ = RequestHeader::decode(&mut Reader::new(frame.clone()));
            for key in ApiKey::ALL {
                let version = *key.valid_versions().end();
                let _ = RequestBody::decode(key, &mut Reader::new(frame.clone()), version);
            }
            batches(frame.clone()).count()
        });
        assert!(allocated <= ApiKey::ALL.len() * 4 * (32 * len + 16 * 1024), "{allocated} for {len}");
    }
}

/// Counts that their bytes can carry, of elements that are much larger in memory.
#[test]
fn arrays_of_tiny_elements_are_refused_before_they_exceed_the_budget() {
    let mut frame = vec![0xc1, 0x84, 0x3d]; // compact count of 1,000,000
    frame.resize(frame.len() + 1_000_000, 1); // empty names: a byte in the frame, 32 in memory
    frame.extend([0, 0]);
    let frame = Bytes::from(frame);
    let decoded = DescribeGroupsRequest::decode(&mut Reader::new(frame.clone()), 5);
    assert_eq!(decoded.map(|request| request.groups.len()), Ok(1_000_000));
    let mut bounded = Reader::with_array_bytes_max(frame, 1024 * 1024);
    let mut result = None;
    let allocated = allocated_bytes(|| result = Some(DescribeGroupsRequest::decode(&mut bounded, 5)));
    assert_eq!(result, Some(Err(DecodeError::MemoryExceeded)));
    assert!(allocated < 1024, "{allocated} bytes allocated");
}

#[test]
fn a_metadata_request_of_five_bytes_claims_nothing() {
    // What makes the `kafka-protocol` crate ask for 154 GB.
    let result = decode_bounded::<MetadataRequest>(&[0xff, 0xff, 0xff, 0xff, 0x0f], 12);
    assert!(matches!(result, Err(DecodeError::ArrayTooLong { .. })), "{result:?}");
}

#[test]
fn produced_batches_with_any_byte_changed_never_panic() {
    let rules = ProduceRules { batch_bytes_max: 1 << 20, zstd_allowed: true };
    let whole = super::batches::sample(crate::record_batch::Compression::None);
    for place in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut forged = whole.to_vec();
            forged[place] = value;
            let forged = Bytes::from(forged);
            let allocated = allocated_bytes(|| validate_produce(&forged, &rules).map(|_| ()));
            assert!(allocated < 1024, "{allocated} bytes allocated at {place}");
        }
    }
}
