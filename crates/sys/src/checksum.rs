//! The checksum of IPv4, ICMP and ICMPv6 (RFC 1071).

/// The checksum over all parts, in the order in which it stands in a packet. A part with an odd number of bytes is
/// filled up with a zero. Over a packet with its checksum in place it is zero.
#[must_use]
pub fn internet(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let values = words.map(|pair| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u64 = values.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        // RFC 1071, section 3: these words add up to 0xddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet(&[&bytes]), (!0xddf2_u16).to_be_bytes());
        assert_eq!(internet(&[&bytes[..2], &bytes[2..]]), internet(&[&bytes]));
        assert_eq!(internet(&[&bytes, &internet(&[&bytes])]), [0, 0]);
        assert_eq!(internet(&[&[0x12]]), internet(&[&[0x12, 0]]));
        assert_eq!(internet(&[]), [0xff, 0xff]);
    }
}
