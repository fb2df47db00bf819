//! The ARP filter as rules: one table of the family `arp` and one of `ip6`, each with one chain at the hook `input`.
//! They are not bound to interfaces, so they cover interfaces that come later, and they need no renewal. Frames that a
//! bridge forwards do not pass that hook, nor do frames of another machine's interface.
//!
//! ```text
//! set service     the service addresses
//! set home        address and number of its own interface, where questions about it are answered
//! set gratuitous  (arp) each address twice: an announcement names the address as sender and as target
//!
//! chain input     a question about an address of `service` that does not arrive on its `home`: drop
//! ```

use std::{collections::BTreeMap, io, net::IpAddr};

use super::{
    NftConnection, TRIES, address,
    message::{AttributeWriter, Batch, MessageType, NFPROTO_ARP, NFPROTO_IPV6, find},
    rules,
};
use crate::gate::{arp_filter::OwnInterfaces, with_context};

/// A batch is sent when it has reached this length: the kernel takes at most a socket's buffer at once.
const BATCH_BYTES: usize = 48 * 1024;
/// The most elements of one request.
const ELEMENTS_A_REQUEST: usize = 256;

const SERVICE: &str = "service";
const HOME: &str = "home";
const GRATUITOUS: &str = "gratuitous";
const INPUT: &str = "input";

// linux/netfilter/nf_tables.h, linux/netfilter_arp.h, linux/netfilter_ipv6.h
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_ID: u16 = 10;
const NFTA_LIST_ELEM: u16 = 1;
const NF_ARP_IN: u32 = 0;
const NF_INET_LOCAL_IN: u32 = 1;
const NF_ACCEPT: u32 = 1;
const NF_DROP: u32 = 0;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_META_IIF: u32 = 4;
const NFT_META_L4PROTO: u32 = 16;
const NFT_CMP_EQ: u32 = 0;
/// Makes `lookup` continue if the key is not an element.
const NFT_LOOKUP_F_INV: u32 = 1;
/// Registers of four bytes, consecutive. The fifth follows 16 bytes behind the first.
const NFT_REG32_00: u32 = 8;
const NFT_REG32_01: u32 = 9;
const NFT_REG32_04: u32 = 12;
/// Before the rules of others: theirs do not answer questions, but may count them.
const PRIORITY: i32 = -450;
// Types that `nft` shows for keys: ipv4_addr, ipv6_addr, iface_index. A key of two parts has both numbers, six bits
// each.
const SHOWN_V4: u32 = 7;
const SHOWN_V6: u32 = 8;
const SHOWN_INTERFACE: u32 = 20;
const IPPROTO_ICMPV6: u8 = 58;
const ND_NEIGHBOR_SOLICIT: u8 = 135;

/// The two tables of the filter, by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FilterFamily {
    Arp,
    Ip6,
}

impl FilterFamily {
    const ALL: [Self; 2] = [Self::Arp, Self::Ip6];

    fn family(self) -> u8 {
        match self {
            Self::Arp => NFPROTO_ARP,
            Self::Ip6 => NFPROTO_IPV6,
        }
    }

    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Arp } else { Self::Ip6 }
    }

    /// Its sets: name, the type that `nft` shows for keys, bytes of a key.
    fn sets(self) -> Vec<(&'static str, u32, u32)> {
        let both = |a: u32, b: u32| a << 6 | b;
        match self {
            Self::Arp => vec![
                (SERVICE, SHOWN_V4, 4),
                (HOME, both(SHOWN_V4, SHOWN_INTERFACE), 8),
                (GRATUITOUS, both(SHOWN_V4, SHOWN_V4), 8),
            ],
            Self::Ip6 => vec![(SERVICE, SHOWN_V6, 16), (HOME, both(SHOWN_V6, SHOWN_INTERFACE), 20)],
        }
    }
}

/// The tables of one cluster. On kernels that know owners of tables (Linux 6.9) they belong to this connection, and
/// outlive it.
#[derive(Debug)]
pub(in crate::gate) struct ArpTables {
    name: String,
    connection: NftConnection,
    batch: Batch,
}

impl ArpTables {
    pub(in crate::gate) fn open(name: String) -> io::Result<Self> {
        Ok(Self { name, connection: NftConnection::open()?, batch: Batch::default() })
    }

    /// Makes both tables contain exactly these addresses. Existing tables keep working meanwhile.
    pub(in crate::gate) fn set(&mut self, own_interfaces: &OwnInterfaces) -> io::Result<()> {
        let old = self.own_interfaces()?;
        self.make()?;
        let added = own_interfaces.iter().filter(|(ip, home)| old.get(ip) != Some(home));
        self.add(added.clone().map(|(ip, home)| (*ip, *home)))?;
        // Former own interfaces, and addresses that were removed.
        let moved = added.filter_map(|(ip, _)| Some((*ip, (*old.get(ip)?)?)));
        self.forget_own_interfaces(moved)?;
        self.forget(
            old.iter().filter(|(ip, _)| !own_interfaces.contains_key(ip)).map(|(ip, home)| (*ip, *home)),
        )
    }

    /// Moves the address from its old own interface, if any, to the new one.
    pub(in crate::gate) fn move_to(&mut self, ip: IpAddr, old: Option<u32>, new: u32) -> io::Result<()> {
        self.add([(ip, Some(new))].into_iter())?;
        self.forget_own_interfaces(old.filter(|old| *old != new).map(|old| (ip, old)).into_iter())
    }

    /// Describes what is missing in the kernel.
    pub(in crate::gate) fn missing(
        &mut self,
        own_interfaces: Option<&OwnInterfaces>,
    ) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        for half in FilterFamily::ALL {
            let (table, rules) = (self.exists(half)?, self.rules(half)?);
            if !table || rules != 1 {
                missing.push(format!("the table {} of the family {}", self.name, family_name(half)));
            }
        }
        // Elements disappear with their table, or when a process with the right to change it deletes them.
        if let Some(own_interfaces) = own_interfaces.filter(|_| missing.is_empty())
            && self.own_interfaces()? != *own_interfaces
        {
            missing.push(format!("addresses in the table {}", self.name));
        }
        Ok(missing)
    }

    /// Removes both tables. Returns whether there was one.
    pub(in crate::gate) fn remove(&mut self) -> io::Result<bool> {
        let mut stood = false;
        for half in FilterFamily::ALL {
            if !self.exists(half)? {
                continue;
            }
            stood = true;
            let name = self.name.clone();
            self.change(move |batch| {
                batch.request_of(half.family(), MessageType::DeleteTable, |a| {
                    a.text(rules::NFTA_TABLE_NAME, &name)
                });
            })
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM) => {
                    let text = format!(
                        "the table {} belongs to a running process: stop that process first",
                        self.name
                    );
                    io::Error::new(io::ErrorKind::ResourceBusy, text)
                }
                _ => with_context(&error, &format!("delete the table {}", self.name)),
            })?;
        }
        Ok(stood)
    }

    /// Removes some addresses. Returns whether any is left.
    pub(in crate::gate) fn remove_addresses(&mut self, addresses: &[IpAddr]) -> io::Result<bool> {
        let old = self.own_interfaces()?;
        self.forget(old.iter().filter(|(ip, _)| addresses.contains(ip)).map(|(ip, home)| (*ip, *home)))?;
        Ok(old.keys().any(|ip| !addresses.contains(ip)))
    }

    /// The addresses in the kernel, each with its own interface.
    pub(in crate::gate) fn own_interfaces(&mut self) -> io::Result<OwnInterfaces> {
        let mut own_interfaces = BTreeMap::new();
        for half in FilterFamily::ALL {
            if !self.exists(half)? {
                continue;
            }
            self.elements(half, SERVICE, |key| own_interfaces.extend(address(key).map(|ip| (ip, None))))?;
            let bytes = if half == FilterFamily::Arp { 4 } else { 16 };
            self.elements(half, HOME, |key| {
                let Some((ip, interface)) = key.split_at_checked(bytes) else { return };
                let interface = interface.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
                if let Some(home) = address(ip).and_then(|ip| own_interfaces.get_mut(&ip)) {
                    *home = interface;
                }
            })?;
        }
        Ok(own_interfaces)
    }

    // ---- implementation

    fn make(&mut self) -> io::Result<()> {
        let doing = |error| with_context(&error, "make the tables of the ARP filter");
        match self.write(rules::NFT_TABLE_F_OWNER | rules::NFT_TABLE_F_PERSIST) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.write(0).map_err(doing)
            }
            other => other.map_err(doing),
        }
    }

    fn write(&mut self, flags: u32) -> io::Result<()> {
        let name = self.name.clone();
        self.change(|batch| {
            for half in FilterFamily::ALL {
                write(batch, half, &name, flags);
            }
        })
    }

    fn add(&mut self, own_interfaces: impl Iterator<Item = (IpAddr, Option<u32>)> + Clone) -> io::Result<()> {
        for half in FilterFamily::ALL {
            let its = own_interfaces.clone().filter(|(ip, _)| FilterFamily::of(*ip) == half);
            // Allow the own interface before the others are shut.
            self.write_elements(
                half,
                MessageType::NewElement,
                HOME,
                its.clone().filter_map(|(ip, home)| Some(pair(ip, home?))),
            )?;
            if half == FilterFamily::Arp {
                self.write_elements(
                    half,
                    MessageType::NewElement,
                    GRATUITOUS,
                    its.clone().map(|(ip, _)| twice(ip)),
                )?;
            }
            self.write_elements(half, MessageType::NewElement, SERVICE, its.map(|(ip, _)| octets(ip)))?;
        }
        Ok(())
    }

    fn forget_own_interfaces(
        &mut self,
        own_interfaces: impl Iterator<Item = (IpAddr, u32)> + Clone,
    ) -> io::Result<()> {
        for half in FilterFamily::ALL {
            let its = own_interfaces.clone().filter(|(ip, _)| FilterFamily::of(*ip) == half);
            self.write_elements(
                half,
                MessageType::DeleteElement,
                HOME,
                its.map(|(ip, home)| pair(ip, home)),
            )?;
        }
        Ok(())
    }

    fn forget(
        &mut self,
        own_interfaces: impl Iterator<Item = (IpAddr, Option<u32>)> + Clone,
    ) -> io::Result<()> {
        for half in FilterFamily::ALL {
            let its = own_interfaces.clone().filter(|(ip, _)| FilterFamily::of(*ip) == half);
            self.write_elements(
                half,
                MessageType::DeleteElement,
                SERVICE,
                its.clone().map(|(ip, _)| octets(ip)),
            )?;
            if half == FilterFamily::Arp {
                self.write_elements(
                    half,
                    MessageType::DeleteElement,
                    GRATUITOUS,
                    its.map(|(ip, _)| twice(ip)),
                )?;
            }
        }
        self.forget_own_interfaces(own_interfaces.filter_map(|(ip, home)| Some((ip, home?))))
    }

    /// Sends as many batches as are needed; each is performed completely or not at all.
    fn write_elements(
        &mut self,
        half: FilterFamily,
        kind: MessageType,
        set: &str,
        keys: impl Iterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        let keys: Vec<_> = keys.collect();
        let name = self.name.clone();
        let mut rest = &keys[..];
        while !rest.is_empty() {
            let mut taken = 0;
            self.change(|batch| {
                taken = 0;
                for some in rest.chunks(ELEMENTS_A_REQUEST) {
                    if taken > 0 && batch.bytes.len() >= BATCH_BYTES {
                        break;
                    }
                    taken += some.len();
                    batch.request_of(half.family(), kind, |a| elements(a, &name, set, some));
                }
            })
            .map_err(|error| with_context(&error, "write the addresses of the ARP filter"))?;
            rest = &rest[taken..];
        }
        Ok(())
    }

    fn change(&mut self, mut body: impl FnMut(&mut Batch)) -> io::Result<()> {
        let mut result = Ok(());
        for _ in 0..TRIES {
            self.batch.begin();
            body(&mut self.batch);
            let last = self.batch.finish();
            result = self.connection.perform(&self.batch, last);
            if !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EAGAIN)) {
                break;
            }
        }
        result
    }

    fn exists(&mut self, half: FilterFamily) -> io::Result<bool> {
        let name = &self.name;
        let number = self.batch.question_of(half.family(), MessageType::GetTable, false, |a| {
            a.text(rules::NFTA_TABLE_NAME, name)
        });
        self.connection.is_there(&self.batch, number)
    }

    fn rules(&mut self, half: FilterFamily) -> io::Result<usize> {
        let Self { name, connection, .. } = self;
        let question = |batch: &mut Batch| {
            batch.question_of(half.family(), MessageType::GetRule, true, |a| {
                a.text(rules::NFTA_RULE_TABLE, name)
            })
        };
        let mut count = 0;
        connection.ask_all(question, |a| {
            let table = find(a, rules::NFTA_RULE_TABLE).and_then(super::text);
            count += usize::from(table.as_deref() == Some(name.as_str()));
        })?;
        Ok(count)
    }

    fn elements(&mut self, half: FilterFamily, set: &str, mut one: impl FnMut(&[u8])) -> io::Result<()> {
        let Self { name, connection, .. } = self;
        let question = |batch: &mut Batch| {
            batch.question_of(half.family(), MessageType::GetElement, true, |a| {
                a.text(rules::NFTA_SET_ELEM_LIST_TABLE, name);
                a.text(rules::NFTA_SET_ELEM_LIST_SET, set);
            })
        };
        connection
            .ask_all(question, |a| super::elements_of(a).filter_map(super::element_key).for_each(&mut one))
    }
}

/// The names of all such tables, whichever process made them.
pub(in crate::gate) fn tables() -> io::Result<Vec<String>> {
    let mut connection = NftConnection::open()?;
    let mut names = Vec::new();
    for half in FilterFamily::ALL {
        let question =
            |batch: &mut Batch| batch.question_of(half.family(), MessageType::GetTable, true, |_| ());
        connection
            .ask_all(question, |a| names.extend(find(a, rules::NFTA_TABLE_NAME).and_then(super::text)))?;
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Why the kernel does not accept the filter's rules. Leaves nothing behind.
pub(in crate::gate) fn probe() -> Result<(), String> {
    let mut connection =
        NftConnection::open().map_err(|error| format!("no connection to nf_tables: {error}"))?;
    let name = format!("{}-probe-elsewhere-{}", crate::gate::ROOT, std::process::id());
    for half in FilterFamily::ALL {
        let mut batch = Batch::default();
        batch.begin();
        write(&mut batch, half, &name, 0);
        batch.request_of(half.family(), MessageType::DeleteTable, |a| a.text(rules::NFTA_TABLE_NAME, &name));
        let last = batch.finish();
        connection.perform(&batch, last).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => "no right to change rules (CAP_NET_ADMIN)".to_owned(),
            _ => {
                let option =
                    if half == FilterFamily::Arp { "CONFIG_NF_TABLES_ARP" } else { "CONFIG_NF_TABLES_IPV6" };
                format!("no tables of the family {} ({option}): {error}", family_name(half))
            }
        })?;
    }
    Ok(())
}

fn family_name(half: FilterFamily) -> &'static str {
    match half {
        FilterFamily::Arp => "arp",
        FilterFamily::Ip6 => "ip6",
    }
}

/// Makes the table, its sets and its one rule in one step; existing elements stay.
fn write(batch: &mut Batch, half: FilterFamily, name: &str, flags: u32) {
    let family = half.family();
    batch.request_of(family, MessageType::NewTable, |a| {
        a.text(rules::NFTA_TABLE_NAME, name);
        a.number(rules::NFTA_TABLE_FLAGS, flags);
    });
    for (number, (set, shown, bytes)) in (1..).zip(half.sets()) {
        batch.request_of(family, MessageType::NewSet, |a| {
            a.text(NFTA_SET_TABLE, name);
            a.text(NFTA_SET_NAME, set);
            a.number(NFTA_SET_FLAGS, 0);
            a.number(NFTA_SET_KEY_TYPE, shown);
            a.number(NFTA_SET_KEY_LEN, bytes);
            a.number(NFTA_SET_ID, number);
        });
    }
    batch.request_of(family, MessageType::NewChain, |a| {
        a.text(rules::NFTA_CHAIN_TABLE, name);
        a.text(rules::NFTA_CHAIN_NAME, INPUT);
        a.nest(rules::NFTA_CHAIN_HOOK, |a| {
            a.number(NFTA_HOOK_HOOKNUM, if half == FilterFamily::Arp { NF_ARP_IN } else { NF_INET_LOCAL_IN });
            a.number(NFTA_HOOK_PRIORITY, PRIORITY.cast_unsigned());
        });
        a.number(NFTA_CHAIN_POLICY, NF_ACCEPT);
        a.text(NFTA_CHAIN_TYPE, "filter");
    });
    batch.request_of(family, MessageType::DeleteRule, |a| {
        a.text(rules::NFTA_RULE_TABLE, name);
        a.text(rules::NFTA_RULE_CHAIN, INPUT);
    });
    batch.request_of(family, MessageType::NewRule, |a| {
        a.text(rules::NFTA_RULE_TABLE, name);
        a.text(rules::NFTA_RULE_CHAIN, INPUT);
        a.nest(NFTA_RULE_EXPRESSIONS, |a| match half {
            FilterFamily::Arp => arp_rule(&mut ArpFilterRule(a)),
            FilterFamily::Ip6 => ip6_rule(&mut ArpFilterRule(a)),
        });
    });
}

/// RFC 826, for any link: protocol at 2, length of its addresses at 5, operation at 6. With six-byte hardware addresses
/// the sender is at 14 and the target at 24.
fn arp_rule(rule: &mut ArpFilterRule<'_, '_>) {
    rule.load(NFT_PAYLOAD_NETWORK_HEADER, 2, 6, NFT_REG32_00);
    rule.is(NFT_REG32_00, &[8, 0, 6, 4, 0, 1]);
    rule.load(NFT_PAYLOAD_NETWORK_HEADER, 24, 4, NFT_REG32_00);
    rule.lookup(SERVICE, NFT_REG32_00, false);
    rule.interface(NFT_REG32_01);
    rule.lookup(HOME, NFT_REG32_00, true);
    // Gratuitous ARP asks nothing and must pass.
    rule.load(NFT_PAYLOAD_NETWORK_HEADER, 14, 4, NFT_REG32_00);
    rule.load(NFT_PAYLOAD_NETWORK_HEADER, 24, 4, NFT_REG32_01);
    rule.lookup(GRATUITOUS, NFT_REG32_00, true);
    rule.drop();
}

/// RFC 4861: the solicitation's target is 8 bytes into ICMPv6, whatever extension headers come before it.
fn ip6_rule(rule: &mut ArpFilterRule<'_, '_>) {
    rule.transport(NFT_REG32_00);
    rule.is(NFT_REG32_00, &[IPPROTO_ICMPV6]);
    rule.load(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG32_00);
    rule.is(NFT_REG32_00, &[ND_NEIGHBOR_SOLICIT]);
    rule.load(NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16, NFT_REG32_00);
    rule.lookup(SERVICE, NFT_REG32_00, false);
    rule.interface(NFT_REG32_04);
    rule.lookup(HOME, NFT_REG32_00, true);
    rule.drop();
}

/// The expressions of a rule. Each continues with the next one or leaves the rule.
struct ArpFilterRule<'a, 'b>(&'a mut AttributeWriter<'b>);

impl ArpFilterRule<'_, '_> {
    fn expression(&mut self, name: &str, body: impl FnOnce(&mut AttributeWriter<'_>)) {
        self.0.nest(NFTA_LIST_ELEM, |a| {
            a.text(1, name);
            a.nest(2, body);
        });
    }

    fn load(&mut self, base: u32, offset: u32, bytes: u32, register: u32) {
        self.expression("payload", |a| {
            for (attribute, value) in [(1, register), (2, base), (3, offset), (4, bytes)] {
                a.number(attribute, value);
            }
        });
    }

    fn is(&mut self, register: u32, value: &[u8]) {
        self.expression("cmp", |a| {
            a.number(1, register);
            a.number(2, NFT_CMP_EQ);
            a.nest(3, |a| a.bytes(rules::NFTA_DATA_VALUE, value));
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |a| {
            a.number(1, register);
            a.number(2, key);
        });
    }

    fn interface(&mut self, register: u32) {
        self.meta(NFT_META_IIF, register);
    }

    fn transport(&mut self, register: u32) {
        self.meta(NFT_META_L4PROTO, register);
    }

    /// Continues if the registers are an element of the set or, if `inverted`, if they are not.
    fn lookup(&mut self, set: &str, register: u32, inverted: bool) {
        self.expression("lookup", |a| {
            a.text(1, set);
            a.number(2, register);
            if inverted {
                a.number(5, NFT_LOOKUP_F_INV);
            }
        });
    }

    fn drop(&mut self) {
        self.expression("immediate", |a| {
            a.number(1, 0);
            a.nest(2, |a| a.nest(2, |a| a.number(1, NF_DROP)));
        });
    }
}

fn elements(a: &mut AttributeWriter<'_>, table: &str, set: &str, keys: &[Vec<u8>]) {
    a.text(rules::NFTA_SET_ELEM_LIST_TABLE, table);
    a.text(rules::NFTA_SET_ELEM_LIST_SET, set);
    a.nest(rules::NFTA_SET_ELEM_LIST_ELEMENTS, |a| {
        for key in keys {
            a.nest(NFTA_LIST_ELEM, |a| {
                a.nest(rules::NFTA_SET_ELEM_KEY, |a| a.bytes(rules::NFTA_DATA_VALUE, key))
            });
        }
    });
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn twice(ip: IpAddr) -> Vec<u8> {
    octets(ip).repeat(2)
}

fn pair(ip: IpAddr, interface: u32) -> Vec<u8> {
    let mut key = octets(ip);
    key.extend(interface.to_ne_bytes());
    key
}
