//! Service addresses as `haresources` writes them: `ip[/maskbits[/if[:label]][/broadcast]]`.
//! Facts: `docs/heartbeat.md`, section 4.

use alloc::{format, string::String, vec::Vec};
use core::net::{IpAddr, Ipv4Addr};

use super::diag::shown;
use crate::model::resource::Address;

/// Longest name of an interface or an address label: the kernel's limit.
pub(super) const INTERFACE_BYTES_MAX: usize = 15;

/// The message of an error, and its cure if there is one.
pub(super) type ConfigFault = (String, Option<String>);

fn fault<T>(message: impl Into<String>, cure: impl Into<String>) -> Result<T, ConfigFault> {
    Err((message.into(), Some(cure.into())))
}

/// The address family that a script takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressFamily {
    /// IPv4: `IPaddr` and bare dotted addresses.
    V4,
    /// IPv6: the script `IPv6addr`.
    V6,
    /// Either family: the scripts `IPaddr2` and `SendArp`.
    Any,
}

/// The family of a word of `haresources` that is an address without a script's name: four dotted numbers at its
/// beginning, or an IPv6 address that cannot be taken for `script::argument`.
pub(super) fn is_bare(word: &str) -> Option<AddressFamily> {
    let mut numbers = word.splitn(4, '.');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let three = numbers.by_ref().take(3).filter(|part| is_number(part)).count() == 3;
    if three && numbers.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Some(AddressFamily::V4);
    }
    let ip = word.split('/').next().unwrap_or(word);
    let is_v6 = ip.parse::<core::net::Ipv6Addr>().is_ok();
    (is_v6 && (word.contains('/') || ip.replacen("::", "", 1).contains(':'))).then_some(AddressFamily::V6)
}

/// Reads a service address of this family.
///
/// # Errors
/// The fault of the address, with its cure.
pub(super) fn address(text: &str, family: AddressFamily) -> Result<Address, ConfigFault> {
    let mut parts = text.split('/');
    let ip = service_ip(parts.next().unwrap_or_default(), family)?;
    let mut address =
        Address { ip, prefix: None, interface: None, label: None, broadcast: None, by_route: false };
    let rest = parts.collect::<Vec<_>>();
    let mut rest = rest.as_slice();
    if let Some((bits, others)) = rest.split_first() {
        address.prefix = Some(prefix(bits, &ip)?);
        rest = others;
    }
    if let Some((part, others)) = rest.split_first()
        && !part.starts_with(|c: char| c.is_ascii_digit())
    {
        let (name, label) = interface_and_label(part, &ip)?;
        address.interface = Some(name);
        address.label = label;
        rest = others;
    }
    if let Some((part, others)) = rest.split_first() {
        address.broadcast = Some(broadcast(part, &ip)?);
        rest = others;
    }
    match rest.first() {
        None => Ok(address),
        Some(_) => fault(
            "there is too much after the address",
            "write `ip/maskbits/interface:label/broadcast`, or the beginning of that",
        ),
    }
}

/// Rewrites an address that heartbeat's scripts take, but our own grammar does not, in the plain form. Such an address
/// has a dotted mask, an extra slash, or nothing after the last slash or the colon. With `IPaddr`, which makes its own
/// labels, a label of any length is accepted. `None` if there is nothing to rewrite.
pub(super) fn plain(text: &str, script: &str) -> Option<String> {
    if !matches!(script, "IPaddr" | "IPaddr2") {
        return None;
    }
    let mut parts = text.split('/').filter(|part| !part.is_empty()).map(String::from).collect::<Vec<_>>();
    if let Some(mask) = parts.get(1).and_then(|part| part.parse().ok()).and_then(mask_bits) {
        parts[1] = format!("{mask}");
    }
    if let Some(part) = parts.get_mut(2)
        && let Some((name, label)) = part.split_once(':')
        && (label.is_empty()
            || (script == "IPaddr" && part.len() > INTERFACE_BYTES_MAX && !label.contains(':')))
    {
        *part = name.into();
    }
    let plain = parts.join("/");
    (plain != text).then_some(plain)
}

/// The number of bits of a netmask; `None` if the mask has gaps.
fn mask_bits(mask: Ipv4Addr) -> Option<u32> {
    let bits = mask.to_bits().leading_ones();
    (bits > 0 && bits + mask.to_bits().trailing_zeros() == 32).then_some(bits)
}

/// Whether a netmask was written in the place of the broadcast address.
pub(super) fn has_mask_for_broadcast(address: &Address) -> bool {
    // A network is never that large.
    address
        .broadcast
        .and_then(mask_bits)
        .is_some_and(|bits| bits >= 8 && address.broadcast != Some(Ipv4Addr::BROADCAST))
}

fn service_ip(text: &str, family: AddressFamily) -> Result<IpAddr, ConfigFault> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return fault(
            format!("`{}` is not an IP address", shown(text)),
            "write four numbers from 0 to 255 without leading zeros, or an IPv6 address",
        );
    };
    match (family, ip) {
        (AddressFamily::V4, IpAddr::V6(_)) => {
            return fault("IPaddr takes IPv4 addresses", format!("write `IPv6addr::{ip}`"));
        }
        (AddressFamily::V6, IpAddr::V4(_)) => {
            return fault("IPv6addr takes IPv6 addresses", format!("write `IPaddr::{ip}`"));
        }
        (AddressFamily::V4 | AddressFamily::Any, IpAddr::V4(_))
        | (AddressFamily::V6 | AddressFamily::Any, IpAddr::V6(_)) => {}
    }
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_broadcast {
        return fault(
            format!("{ip} cannot be a service address"),
            "take a free address of the network in which the clients are",
        );
    }
    Ok(ip)
}

fn prefix(text: &str, ip: &IpAddr) -> Result<u8, ConfigFault> {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let mask = mask.to_bits();
        let cure = format!("write the number of its bits: `/{}`", mask.leading_ones());
        return fault(format!("`{}` is a mask in dotted form", shown(text)), cure);
    }
    match text.parse::<u8>() {
        Ok(prefix) if (1..=bits).contains(&prefix) => Ok(prefix),
        _ => fault(
            format!("`{}` is not a number of mask bits", shown(text)),
            format!("write 1 to {bits}; an interface or a broadcast address stands after the mask bits"),
        ),
    }
}

fn interface_and_label(text: &str, ip: &IpAddr) -> Result<(String, Option<String>), ConfigFault> {
    let (name, label) = text.split_once(':').map_or((text, None), |(name, label)| (name, Some(label)));
    interface(name)?;
    let Some(label) = label else { return Ok((name.into(), None)) };
    if ip.is_ipv6() {
        return fault("an IPv6 address has no label", format!("write `{}`", shown(name)));
    }
    if label.is_empty() || label.contains(':') {
        return fault(
            format!("`{}` is not a label", shown(text)),
            "write `interface:label`, such as `eth0:web`",
        );
    }
    if text.len() > INTERFACE_BYTES_MAX {
        let room = INTERFACE_BYTES_MAX.saturating_sub(name.len() + 1);
        return fault(
            format!("the label `{}` is longer than {INTERFACE_BYTES_MAX} bytes", shown(text)),
            format!("leave at most {room} bytes after `{}:`", shown(name)),
        );
    }
    Ok((name.into(), Some(text.into())))
}

/// Checks the form of an interface name, not whether the interface exists.
///
/// # Errors
/// The fault of the name, with its cure.
pub(super) fn interface(name: &str) -> Result<(), ConfigFault> {
    let is_path = name == "." || name == ".." || name.contains('/');
    if name.is_empty() || name.len() > INTERFACE_BYTES_MAX || is_path || name.contains(':') {
        return fault(
            format!("`{}` cannot be the name of an interface", shown(name)),
            format!("write 1 to {INTERFACE_BYTES_MAX} bytes without `/` and `:`, as `ip link` shows it"),
        );
    }
    Ok(())
}

fn broadcast(text: &str, ip: &IpAddr) -> Result<Ipv4Addr, ConfigFault> {
    if ip.is_ipv6() {
        return fault("an IPv6 address has no broadcast address", "end after the interface");
    }
    text.parse().or_else(|_| {
        fault(
            format!("`{}` is not a broadcast address", shown(text)),
            "write it as four numbers, or leave it out: it follows from the mask",
        )
    })
}

/// Whether the address is the first or last of its network, which stand for the network itself.
pub(super) fn names_the_network(address: &Address) -> bool {
    let (IpAddr::V4(ip), Some(prefix @ 1..=30)) = (address.ip, address.prefix) else { return false };
    let host = ip.to_bits() & (u32::MAX >> prefix);
    host == 0 || host == u32::MAX >> prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, family: AddressFamily) -> Result<String, String> {
        let none = || String::from("-");
        address(text, family).map_err(|(message, _)| message).map(|it| {
            let prefix = it.prefix.map_or_else(none, |prefix| format!("{prefix}"));
            let broadcast = it.broadcast.map_or_else(none, |broadcast| format!("{broadcast}"));
            let [interface, label] = [it.interface, it.label].map(|name| name.unwrap_or_else(none));
            format!("{} {prefix} {interface} {label} {broadcast}", it.ip)
        })
    }

    #[test]
    fn all_forms_are_read() {
        for (text, read) in [
            ("10.0.0.1", "10.0.0.1 - - - -"),
            ("10.0.0.1/24", "10.0.0.1 24 - - -"),
            ("10.0.0.1/24/eth0", "10.0.0.1 24 eth0 - -"),
            ("10.0.0.1/24/eth0:web", "10.0.0.1 24 eth0 eth0:web -"),
            ("10.0.0.1/24/eth0:0/10.0.0.127", "10.0.0.1 24 eth0 eth0:0 10.0.0.127"),
            ("10.0.0.1/24/eth0/10.0.0.255", "10.0.0.1 24 eth0 - 10.0.0.255"),
            ("10.0.0.1/24/10.0.0.255", "10.0.0.1 24 - - 10.0.0.255"),
            ("2001:db8::1/64/eth0", "2001:db8::1 64 eth0 - -"),
            ("fe80::1", "fe80::1 - - - -"),
        ] {
            assert_eq!(parts(text, AddressFamily::Any), Ok(read.into()), "{text}");
        }
    }

    #[test]
    fn bad_forms_are_refused() {
        for (text, message) in [
            ("10.0.0.256", "`10.0.0.256` is not an IP address"),
            ("10.0.0.01", "`10.0.0.01` is not an IP address"),
            ("", "`` is not an IP address"),
            ("0.0.0.0", "0.0.0.0 cannot be a service address"),
            ("127.0.0.2", "127.0.0.2 cannot be a service address"),
            ("224.0.0.1", "224.0.0.1 cannot be a service address"),
            ("255.255.255.255", "255.255.255.255 cannot be a service address"),
            ("10.0.0.1/33", "`33` is not a number of mask bits"),
            ("10.0.0.1/0", "`0` is not a number of mask bits"),
            ("10.0.0.1/", "`` is not a number of mask bits"),
            ("10.0.0.1/255.255.255.0", "`255.255.255.0` is a mask in dotted form"),
            ("10.0.0.1/eth0", "`eth0` is not a number of mask bits"),
            ("10.0.0.1/24/eth0:", "`eth0:` is not a label"),
            ("10.0.0.1/24/eth0:averylonglabel", "the label `eth0:averylonglabel` is longer than 15 bytes"),
            ("10.0.0.1/24/interfacenametoolong", "`interfacenametoolong` cannot be the name of an interface"),
            ("10.0.0.1/24/", "`` cannot be the name of an interface"),
            ("10.0.0.1/24/eth0/nonsense", "`nonsense` is not a broadcast address"),
            ("10.0.0.1/24/eth0/10.0.0.255/x", "there is too much after the address"),
            ("fd00::1/129", "`129` is not a number of mask bits"),
            ("fd00::1/64/eth0:web", "an IPv6 address has no label"),
            ("fd00::1/64/eth0/10.0.0.255", "an IPv6 address has no broadcast address"),
            ("::", ":: cannot be a service address"),
        ] {
            assert_eq!(parts(text, AddressFamily::Any), Err(message.into()), "{text}");
        }
        assert_eq!(parts("fd00::1", AddressFamily::V4), Err("IPaddr takes IPv4 addresses".into()));
        assert_eq!(parts("10.0.0.1", AddressFamily::V6), Err("IPv6addr takes IPv6 addresses".into()));
    }

    #[test]
    fn heartbeats_other_forms_have_a_plain_one() {
        for (text, script, form) in [
            ("192.0.2.50/255.255.255.0", "IPaddr", Some("192.0.2.50/24")),
            ("192.0.2.50/255.255.255.240/eth0/192.0.2.63", "IPaddr2", Some("192.0.2.50/28/eth0/192.0.2.63")),
            ("192.0.2.51//24/eth0:1", "IPaddr", Some("192.0.2.51/24/eth0:1")),
            ("192.0.2.52/24/eth0:", "IPaddr2", Some("192.0.2.52/24/eth0")),
            ("192.0.2.53/24/", "IPaddr", Some("192.0.2.53/24")),
            ("192.0.2.53/", "IPaddr", Some("192.0.2.53")),
            ("192.0.2.54/24/eth0:a-long-label-of-a-service", "IPaddr", Some("192.0.2.54/24/eth0")),
            ("192.0.2.54/24/eth0:a-long-label-of-a-service", "IPaddr2", None),
            ("192.0.2.54/24/eth0:web", "IPaddr", None),
            ("192.0.2.55/255.0.255.0", "IPaddr", None),
            ("192.0.2.55/0.0.0.0", "IPaddr", None),
            ("fd00::1/64/", "IPv6addr", None),
            ("192.0.2.56", "IPaddr", None),
        ] {
            assert_eq!(plain(text, script).as_deref(), form, "{script} {text}");
        }
        for (text, is_mask) in [
            ("192.0.2.9/24/eth0/255.255.255.0", true),
            ("192.0.2.9/24/255.255.254.0", true),
            ("192.0.2.9/24/eth0/192.0.2.255", false),
            ("192.0.2.9/24/eth0/255.255.255.255", false),
            ("192.0.2.9/24/eth0", false),
        ] {
            assert_eq!(has_mask_for_broadcast(&address(text, AddressFamily::V4).unwrap()), is_mask, "{text}");
        }
    }

    #[test]
    fn bare_addresses_are_told_from_scripts() {
        for (word, family) in [
            ("10.0.0.1", Some(AddressFamily::V4)),
            ("10.0.0.1/24/eth0", Some(AddressFamily::V4)),
            ("300.0.0.1", Some(AddressFamily::V4)),
            ("10.0.0.1.2", Some(AddressFamily::V4)),
            ("10.0.0", None),
            ("10.0.0.", None),
            ("a.0.0.1", None),
            ("httpd", None),
            ("fd00::10/64", Some(AddressFamily::V6)),
            ("fd00:1::10", Some(AddressFamily::V6)),
            ("dead::beef", None),
            ("drbd::r0", None),
            ("Filesystem::/dev/sda1::/mnt", None),
        ] {
            assert_eq!(is_bare(word), family, "{word}");
        }
    }

    #[test]
    fn the_ends_of_a_network_are_noticed() {
        for (text, is_end) in [
            ("10.0.0.0/24", true),
            ("10.0.0.255/24", true),
            ("10.0.0.1/24", false),
            ("10.0.0.0/31", false),
            ("10.0.0.0", false),
            ("10.0.1.0/23", false),
        ] {
            assert_eq!(names_the_network(&address(text, AddressFamily::V4).unwrap()), is_end, "{text}");
        }
    }
}
