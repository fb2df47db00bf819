//! The cutter of serial streams: however the stream is cut into pieces, the same frames come out, each within bounds,
//! and every byte is accounted for. The first byte chooses the size of the pieces.

use locum_core::framing::classic::Cutter;

pub fn check(input: &[u8]) {
    let Some((&size, stream)) = input.split_first() else { return };
    let (frames, skipped) = cut(stream.chunks(usize::from(size) + 1));
    assert_eq!((&frames, skipped), (&cut([stream]).0, cut([stream]).1));
    for frame in &frames {
        assert!(frame.starts_with(b">>>\n") && frame.ends_with(b"\n<<<\n"), "{}", frame.escape_ascii());
        let ends = frame.windows(5).filter(|window| window == b"\n<<<\n").count();
        let starts = frame.windows(5).filter(|window| window == b"\n>>>\n").count();
        assert_eq!((ends, starts), (1, 0), "{}", frame.escape_ascii());
    }
    let inside: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    assert!(inside + skipped <= stream.len() as u64);
    // After a garbled line the next frame is found.
    let good = b"\n>>>\nt=x\n<<<\n".as_slice();
    let (frames, _) = cut([stream, good]);
    assert_eq!(frames.last().map(Vec::as_slice), Some(&good[1..]));
}

fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, u64) {
    let mut cutter = Cutter::default();
    let mut frames = vec![];
    for mut piece in pieces {
        while let Some(frame) = cutter.cut(&mut piece) {
            frames.push(frame.to_vec());
        }
    }
    (frames, cutter.skipped())
}
