//! What a queue keeps, drops and gives back.

use proptest::prelude::*;

use super::*;

/// A queue and what belongs to it.
struct Tested {
    queue: Queue,
    spare: Spare,
}

impl Tested {
    fn new(limit: usize) -> Self {
        Self { queue: Queue::new(limit, Duration::from_secs(1)), spare: Spare::default() }
    }

    fn data(&mut self, bytes: &[u8], now: Time) -> usize {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        self.queue.push_data([first, &[], rest], now, &mut self.spare)
    }

    fn control(&mut self, bytes: &[u8]) {
        self.queue.push_control(bytes, Time(0), &mut self.spare);
    }

    fn advance(&mut self, bytes: usize) {
        self.queue.advance(bytes, &mut self.spare);
    }

    fn drop_old(&mut self, now: Time) -> usize {
        self.queue.drop_old(now, &mut self.spare)
    }

    fn contents(&mut self) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = self.queue.gather(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn memory(&self) -> usize {
        let Queue { begun, data, control, .. } = &self.queue;
        begun.storage.memory() + data.storage.memory() + control.storage.memory()
    }
}

/// A limit for this many messages of so many bytes together.
const fn room(messages: usize, bytes: usize) -> usize {
    messages * OVERHEAD + bytes
}

#[test]
fn the_oldest_data_give_way_and_responses_never() {
    let mut queue = Tested::new(room(3, 6));
    assert_eq!(queue.data(b"aa", Time(0)), 0);
    queue.control(b"RR");
    assert_eq!(queue.data(b"bb", Time(0)), 0);
    assert_eq!(queue.data(b"cc", Time(0)), 0);
    assert_eq!(queue.contents(), b"aaRRbbcc");
    assert_eq!(queue.data(b"dddd", Time(0)), 2);
    assert_eq!(queue.contents(), b"RRccdddd");
    let too_long = [0; room(3, 6)];
    assert_eq!(queue.data(&too_long, Time(0)), 3);
    assert_eq!(queue.contents(), b"RR");
}

#[test]
fn a_message_begun_is_finished() {
    let mut queue = Tested::new(room(1, 4));
    assert_eq!(queue.data(b"abcd", Time(0)), 0);
    queue.advance(1);
    assert_eq!(queue.data(b"e", Time(0)), 1);
    assert_eq!(queue.drop_old(Time(5000)), 0);
    assert_eq!(queue.contents(), b"bcd");
    queue.advance(3);
    assert!(queue.queue.is_empty());
    assert_eq!(queue.data(b"efgh", Time(0)), 0);
}

#[test]
fn data_behind_a_response_begun_give_way() {
    let mut queue = Tested::new(room(1, 4));
    queue.control(b"RR");
    assert_eq!(queue.data(b"abcd", Time(0)), 0);
    queue.advance(1);
    assert_eq!(queue.data(b"efgh", Time(0)), 1);
    assert_eq!(queue.contents(), b"Refgh");
    queue.advance(2);
    assert_eq!(queue.contents(), b"fgh");
    queue.control(b"SS");
    assert_eq!(queue.data(b"ijkl", Time(0)), 1);
    assert_eq!(queue.contents(), b"fghSS");
    queue.advance(5);
    assert!(queue.queue.is_empty());
    assert_eq!((queue.queue.data.size, queue.queue.control.size), (0, 0));
}

#[test]
fn old_data_are_dropped() {
    let mut queue = Tested::new(1000);
    queue.data(b"a", Time(0));
    queue.data(b"b", Time(500));
    assert_eq!(queue.drop_old(Time(1000)), 0);
    assert_eq!(queue.drop_old(Time(1001)), 1);
    assert_eq!(queue.contents(), b"b");
    assert_eq!(queue.drop_old(Time(5000)), 1);
    assert_eq!((queue.memory(), queue.queue.is_empty()), (0, true));
}

#[test]
fn unread_responses_stop_reading() {
    let mut queue = Tested::new(room(1, 4));
    queue.control(b"RRRR");
    assert!(!queue.queue.is_stuffed());
    queue.control(b"R");
    assert!(queue.queue.is_stuffed());
    queue.advance(4);
    assert!(!queue.queue.is_stuffed());
}

/// Each in one piece, also where the storage's end lies within it and where one lane's message stands between the other's.
#[test]
fn messages_apart_are_pieces_of_their_own() {
    let mut queue = Tested::new(1 << 20);
    queue.queue = queue.queue.apart();
    queue.data(&[255; 33], Time(0));
    for round in 0..200_u8 {
        let (before, first, second) = ([round.wrapping_sub(1); 33], [round; 700], [round; 900]);
        queue.data(&first, Time(0));
        queue.control(&second);
        queue.data(&[round; 33], Time(0));
        let mut slices = [IoSlice::new(&[]); 8];
        let count = queue.queue.gather(&mut slices);
        let pieces: Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
        assert_eq!(pieces, [&before[..], &first, &second, &[round; 33]]);
        // One message stays, so that the storage is not emptied and its end comes to lie everywhere.
        queue.advance(33 + 700 + 900);
    }
}

/// However long the messages are, and if short ones follow long ones. A quarter is room to grow.
#[test]
fn messages_take_hardly_more_memory_than_the_limit() {
    const LIMIT: usize = 256 << 10;
    let mut queue = Tested::new(LIMIT);
    for len in [1200, 4, 60_000, 160, 20, 4, 10_000, 4] {
        for _ in 0..20_000 {
            queue.data(&[7; 60_000][..len], Time(0));
        }
        assert!(queue.memory() <= LIMIT + LIMIT / 4, "{} for {len}", queue.memory());
    }
    let mut queue = Tested::new(LIMIT);
    while !queue.queue.is_stuffed() {
        queue.control(b"abcd");
    }
    assert!(queue.memory() <= LIMIT + LIMIT / 4, "{}", queue.memory());
}

#[test]
fn an_empty_queue_holds_no_memory_and_a_worker_little() {
    let mut queues: Vec<_> = (0..10).map(|_| Queue::new(1 << 20, Duration::from_secs(1))).collect();
    let mut spare = Spare::default();
    for queue in &mut queues {
        for _ in 0..800 {
            assert_eq!(queue.push_data([b"head", &[7; 1196], &[]], Time(0), &mut spare), 0);
        }
        queue.push_control(b"response", Time(0), &mut spare);
    }
    for queue in &mut queues {
        queue.advance(1000, &mut spare);
        queue.advance(200 + 799 * 1200 + 8, &mut spare);
        assert!(queue.is_empty());
        assert_eq!(queue.begun.storage.memory(), 0);
        assert_eq!(queue.data.storage.memory() + queue.control.storage.memory(), 0);
    }
    let memory = spare.unused.iter().map(Storage::memory).sum::<usize>();
    assert!(memory == spare.memory && memory <= KEPT, "{memory}");
}

/// 100,000 drops behind 50,000 responses: milliseconds, unless each looks at all of them.
#[test]
fn data_are_dropped_without_looking_at_responses() {
    let mut queue = Tested::new(room(10, 40));
    for _ in 0..50_000 {
        queue.control(b"RRRR");
    }
    let start = std::time::Instant::now();
    let dropped: usize = (0..100_000).map(|_| queue.data(b"data", Time(0))).sum();
    assert_eq!(dropped, 100_000 - 10);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// What may happen to a queue.
#[derive(Debug, Clone)]
enum Step {
    Data(usize),
    Control(usize),
    Write(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..300usize).prop_map(Step::Data),
        2 => (1..100usize).prop_map(Step::Control),
        3 => (1..600usize).prop_map(Step::Write),
        1 => (1..400u64).prop_map(Step::Wait),
    ]
}

/// A message as the model knows it: its bytes, when it was queued if it is data, and how many bytes are written.
type Known = (Vec<u8>, Option<Time>, usize);

/// What the model holds of data, as the limit counts it.
fn size(model: &[Known]) -> usize {
    model.iter().filter(|known| known.1.is_some()).map(|known| OVERHEAD + known.0.len()).sum()
}

/// The oldest data that give way are removed as long as `more` says so; returns how many.
fn give_way(model: &mut Vec<Known>, more: impl Fn(&[Known], Time) -> bool) -> usize {
    let mut count = 0;
    while let Some(at) = model.iter().position(|(_, queued, written)| queued.is_some() && *written == 0) {
        if !model[at].1.is_some_and(|queued| more(model, queued)) {
            break;
        }
        model.remove(at);
        count += 1;
    }
    count
}

proptest! {
    /// Against a list of messages: the same bytes in the same order, the same drops.
    #[test]
    fn like_a_plain_list(steps in prop::collection::vec(step(), 1..200)) {
        const LIMIT: usize = 2000;
        let mut queue = Tested::new(LIMIT);
        let (mut model, mut now, mut next) = (Vec::<Known>::new(), Time(0), 0u8);
        for step in steps {
            next = next.wrapping_add(1);
            match step {
                Step::Data(len) => {
                    let dropped = queue.data(&vec![next; len], now);
                    let mut expected = give_way(&mut model, |_, queued| now.since(queued) > Duration::from_secs(1));
                    expected += give_way(&mut model, |model, _| size(model) + OVERHEAD + len > LIMIT);
                    if size(&model) + OVERHEAD + len <= LIMIT {
                        model.push((vec![next; len], Some(now), 0));
                    } else {
                        expected += 1;
                    }
                    prop_assert_eq!(dropped, expected);
                }
                Step::Control(len) => {
                    queue.control(&vec![next; len]);
                    model.push((vec![next; len], None, 0));
                }
                Step::Write(bytes) => {
                    let bytes = bytes.min(queue.contents().len());
                    queue.advance(bytes);
                    let mut left = bytes;
                    while left > 0 {
                        let (bytes, _, written) = &mut model[0];
                        let part = left.min(bytes.len() - *written);
                        *written += part;
                        left -= part;
                        if *written == bytes.len() {
                            model.remove(0);
                        }
                    }
                }
                Step::Wait(time) => {
                    now = now + Duration::from_millis(time);
                    let expected = give_way(&mut model, |_, queued| now.since(queued) > Duration::from_secs(1));
                    prop_assert_eq!(queue.drop_old(now), expected);
                }
            }
            let expected: Vec<u8> = model.iter().flat_map(|(bytes, _, written)| bytes[*written..].to_vec()).collect();
            // As far as 64 slices reach.
            let contents = queue.contents();
            prop_assert!(expected.starts_with(&contents));
            prop_assert!(contents.len() == expected.len() || model.len() > 60);
            prop_assert_eq!(queue.queue.is_empty(), model.is_empty());
        }
    }
}
