//! Decoding allocates nothing, whatever length the bytes claim. (Invariant 9.)

#![expect(unsafe_code, reason = "a global allocator can only be counted by implementing one")]

use headwater_mqtt::codec::{Decoded, Decoder, Version};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: forwards to the system's allocator; the counter is a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(decoder: &Decoder, input: &[u8]) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    let decoded = decoder.decode(input);
    let after = ALLOCATIONS.with(Cell::get);
    std::hint::black_box(&decoded);
    after - before
}

#[test]
fn decoding_allocates_nothing() {
    let mut server = Decoder::server(u32::MAX);
    server.set_version(Version::V5);
    let counted = ALLOCATIONS.with(Cell::get);
    let probe = std::hint::black_box(vec![1u8; 10]);
    assert!(ALLOCATIONS.with(Cell::get) > counted && !probe.is_empty(), "the counter counts");

    let user = b"\x26\0\x01k\0\x01v".repeat(16);
    let mut publish = vec![0x32, (3 + 2 + 1 + user.len() + 5) as u8, 0, 1, b't', 0, 1];
    publish.push(user.len() as u8);
    publish.extend(&user);
    publish.extend(b"hello");
    assert!(matches!(server.decode(&publish), Ok(Decoded::Packet { .. })));
    assert_eq!(allocations(&server, &publish), 0);

    let mut subscribe = vec![0x82, 0x9F, 0x03, 0, 1, 0];
    for _ in 0..103 {
        subscribe.extend(b"\0\x01a\x01");
    }
    assert!(matches!(server.decode(&subscribe), Ok(Decoded::Packet { .. })));
    assert_eq!(allocations(&server, &subscribe), 0);

    // Lengths that lie: the frame, a string, the properties, a property.
    for lie in [
        &[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0][..],
        &[0x30, 3, 0xFF, 0xFF, b'a'],
        &[0x30, 7, 0, 1, b'a', 0xFF, 0xFF, 0xFF, 0x7F],
        &[0x30, 7, 0, 1, b'a', 3, 0x09, 0xFF, 0xFF],
    ] {
        assert_eq!(allocations(&server, lie), 0, "{lie:02x?}");
    }
}
