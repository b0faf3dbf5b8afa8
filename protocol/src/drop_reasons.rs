//! The form that reasons for dropping packets have, in agent and coordinator alike: a fieldless enumeration that
//! indexes counters, each reason with the name that status and metrics show.

/// Defines such an enumeration, with `ALL` (in the order of the counters) and `name`.
#[macro_export]
macro_rules! drop_reasons {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$reason_doc:meta])* $reason:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum $name {
            $($(#[$reason_doc])* $reason,)*
        }

        impl $name {
            /// All reasons, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$reason),*];

            /// The stable name, as in status and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $text),* }
            }
        }
    };
}
