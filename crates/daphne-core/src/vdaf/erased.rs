//! Where the type parameters of `prio` end.

/// Defines an enum over the types that a generic type takes, convertible both ways. Its `Debug` is its name:
/// all that is erased here is secret.
macro_rules! erased {
    ($(#[$doc:meta])* $name:ident { $($variant:ident($type:ty)),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub(in crate::vdaf) enum $name {
            $($variant($type)),+
        }

        $(
            impl From<$type> for $name {
                fn from(value: $type) -> Self {
                    Self::$variant(value)
                }
            }

            impl TryFrom<$name> for $type {
                type Error = ();

                fn try_from(value: $name) -> Result<Self, ()> {
                    match value {
                        $name::$variant(value) => Ok(value),
                        #[allow(unreachable_patterns)]
                        _ => Err(()),
                    }
                }
            }
        )+
    };
}

pub(super) use erased;
