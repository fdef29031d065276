//! The macros that implement [`Trace`](super::Trace).

/// Defines a type whose values can be objects of a heap, and implements
/// [`Trace`](crate::heap::Trace) for it by visiting each of its fields.
///
/// ```
/// use filed::heap::{Gc, GcCell, Heap, Link, traced};
///
/// traced! {
///     /// A node of a tree that knows its parent.
///     pub struct Node {
///         name: String,
///         parent: Link<Node>,
///         children: GcCell<Vec<Gc<Node>>>,
///     }
/// }
///
/// let heap = Heap::new();
/// let root = heap.alloc(Node {
///     name: "root".into(),
///     parent: Link::none(),
///     children: GcCell::default(),
/// })?;
/// let child = heap.alloc(Node {
///     name: "child".into(),
///     parent: Link::to(root.clone()),
///     children: GcCell::default(),
/// })?;
/// root.children.borrow_mut().push(child);
/// # Ok::<(), filed::heap::HeapFull>(())
/// ```
///
/// * Structs with named fields, tuple structs, unit structs and enums; type
///   parameters with simple bounds.
/// * A field whose type is not `Trace` does not compile, and no field can be
///   left out.
/// * `Drop` cannot be implemented for the type. What is to happen at its end is
///   said after it by `finalize |this| { ... }`, where `this` is a `&Gc<Type>`;
///   it runs once, while the object is still whole.
/// * Whether the type can be in a cycle follows from its fields: it can if there
///   is a handle in it. `acyclic` before the type says that its handles never
///   lead back to it, and spares the collector its objects; if that is wrong,
///   cycles through it are not found. `cyclic` says that they may, which a type
///   that contains itself in a `Box` or `Vec` has to say, as it cannot follow.
///
/// A forgotten or wrong field does not compile:
///
/// ```compile_fail
/// filed::heap::traced! {
///     struct Wrong {
///         cell: std::cell::Cell<Option<filed::heap::Gc<String>>>,
///     }
/// }
/// ```
///
/// Nor does a `Drop`:
///
/// ```compile_fail
/// filed::heap::traced! {
///     struct Wrong { name: String }
/// }
/// impl Drop for Wrong {
///     fn drop(&mut self) {}
/// }
/// ```
#[macro_export]
macro_rules! traced {
    () => {};
    // acyclic / cyclic / inferred
    ($(#[$meta:meta])* $vis:vis acyclic $($rest:tt)*) => {
        $crate::traced!(@item [acyclic] [$(#[$meta])* $vis] $($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis cyclic $($rest:tt)*) => {
        $crate::traced!(@item [cyclic] [$(#[$meta])* $vis] $($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis struct $($rest:tt)*) => {
        $crate::traced!(@item [inferred] [$(#[$meta])* $vis] struct $($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis enum $($rest:tt)*) => {
        $crate::traced!(@item [inferred] [$(#[$meta])* $vis] enum $($rest)*);
    };

    // struct with named fields
    (@item [$kind:ident] [$($head:tt)*] struct $name:ident $(<$($param:ident $(: $bound:path)?),+ $(,)?>)? {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $type:ty),* $(,)?
    } $($rest:tt)*) => {
        $($head)* struct $name $(<$($param: $crate::heap::Trace $(+ $bound)?),+>)? {
            $($(#[$field_meta])* $field_vis $field: $type),*
        }
        $crate::traced!(@impl [$kind] [$name] [$($($param $(: $bound)?),+)?]
            [$($type),*]
            |value, tracer| {
                let $name { $($field),* } = value;
                $($crate::heap::Trace::trace($field, tracer);)*
            }; $($rest)*);
    };
    // tuple struct
    (@item [$kind:ident] [$($head:tt)*] struct $name:ident $(<$($param:ident $(: $bound:path)?),+ $(,)?>)? (
        $($(#[$field_meta:meta])* $field_vis:vis $type:ty),* $(,)?
    ); $($rest:tt)*) => {
        $($head)* struct $name $(<$($param: $crate::heap::Trace $(+ $bound)?),+>)? (
            $($(#[$field_meta])* $field_vis $type),*
        );
        $crate::traced!(@impl [$kind] [$name] [$($($param $(: $bound)?),+)?]
            [$($type),*]
            |value, tracer| {
                $crate::traced!(@tuple value tracer [] [0 1 2 3 4 5 6 7 8 9 10 11] $($type),*);
            }; $($rest)*);
    };
    // unit struct
    (@item [$kind:ident] [$($head:tt)*] struct $name:ident; $($rest:tt)*) => {
        $($head)* struct $name;
        $crate::traced!(@impl [$kind] [$name] [] []
            |value, tracer| { let _ = (value, tracer); }; $($rest)*);
    };
    // enum
    (@item [$kind:ident] [$($head:tt)*] enum $name:ident $(<$($param:ident $(: $bound:path)?),+ $(,)?>)? {
        $($(#[$variant_meta:meta])* $variant:ident
            $(( $($(#[$t_meta:meta])* $t_type:ty),* $(,)? ))?
            $({ $($(#[$n_meta:meta])* $n_field:ident : $n_type:ty),* $(,)? })?
        ),* $(,)?
    } $($rest:tt)*) => {
        $($head)* enum $name $(<$($param: $crate::heap::Trace $(+ $bound)?),+>)? {
            $($(#[$variant_meta])* $variant
                $(( $($(#[$t_meta])* $t_type),* ))?
                $({ $($(#[$n_meta])* $n_field: $n_type),* })?
            ),*
        }
        $crate::traced!(@impl [$kind] [$name] [$($($param $(: $bound)?),+)?]
            [$($($($t_type,)*)? $($($n_type,)*)?)*]
            |value, tracer| {
                $($crate::traced!(@variant value tracer $name $variant
                    $(($($t_type),*))? $({$($n_field),*})?);)*
            }; $($rest)*);
    };

    (@tuple $value:ident $tracer:ident [] [$($numbers:tt)*]) => { let _ = ($value, $tracer); };
    (@tuple $value:ident $tracer:ident [] [$number:tt $($numbers:tt)*] $type:ty $(, $types:ty)*) => {
        $crate::heap::Trace::trace(&$value.$number, $tracer);
        $crate::traced!(@tuple $value $tracer [] [$($numbers)*] $($types),*);
    };

    (@variant $value:ident $tracer:ident $name:ident $variant:ident) => {
        let _ = &$tracer;
        if let $name::$variant = $value {}
    };
    (@variant $value:ident $tracer:ident $name:ident $variant:ident {$($field:ident),*}) => {
        #[allow(irrefutable_let_patterns, reason = "an enum may have one variant")]
        if let $name::$variant { $($field),* } = $value {
            $($crate::heap::Trace::trace($field, $tracer);)*
        }
    };
    (@variant $value:ident $tracer:ident $name:ident $variant:ident ($($type:ty),*)) => {
        $crate::traced!(@places $value $tracer $name $variant [] [a b c d e f g h] $($type),*);
    };
    (@places $value:ident $tracer:ident $name:ident $variant:ident [$($place:ident)*] [$($more:ident)*]) => {
        #[allow(irrefutable_let_patterns, reason = "an enum may have one variant")]
        if let $name::$variant($($place),*) = $value {
            $($crate::heap::Trace::trace($place, $tracer);)*
        }
    };
    (@places $value:ident $tracer:ident $name:ident $variant:ident [$($place:ident)*]
        [$next:ident $($more:ident)*] $type:ty $(, $types:ty)*) => {
        $crate::traced!(@places $value $tracer $name $variant [$($place)* $next] [$($more)*] $($types),*);
    };

    (@cyclic acyclic $($type:ty),*) => { false };
    (@cyclic cyclic $($type:ty),*) => { true };
    (@cyclic inferred $($type:ty),*) => {
        false $(|| <$type as $crate::heap::Trace>::CYCLIC)*
    };

    (@impl [$($what:tt)*] [$name:ident] [$($params:tt)*] [$($types:tt)*]
        |$value:ident, $tracer:ident| $body:block; finalize |$this:ident| $finalize:block $($rest:tt)*) => {
        $crate::traced!(@emit [$($what)*] [$name] [$($params)*] [$($types)*]
            [finalize $this $finalize] |$value, $tracer| $body);
        $crate::traced!($($rest)*);
    };
    (@impl [$($what:tt)*] [$name:ident] [$($params:tt)*] [$($types:tt)*]
        |$value:ident, $tracer:ident| $body:block; $($rest:tt)*) => {
        $crate::traced!(@emit [$($what)*] [$name] [$($params)*] [$($types)*]
            [] |$value, $tracer| $body);
        $crate::traced!($($rest)*);
    };
    (@emit [$kind:ident] [$name:ident] [$($param:ident $(: $bound:path)?),*] [$($type:ty),* $(,)?]
        [$(finalize $this:ident $finalize:block)?]
        |$value:ident, $tracer:ident| $body:block) => {
        const _: () = {
            #[allow(unsafe_code, reason = "every field is visited once, and `Drop` is ruled out below")]
            // SAFETY: every field is visited once by destructuring or by its place, fields change
            // only through their own types, and the type has no `Drop`.
            unsafe impl<$($param: $crate::heap::Trace $(+ $bound)?),*> $crate::heap::Trace
                for $name<$($param),*>
            {
                const CYCLIC: bool = $crate::traced!(@cyclic $kind $($type),*);
                const FINALIZES: bool = $crate::traced!(@finalizes $(finalize $this)?);

                #[inline]
                fn trace(&self, tracer: &mut $crate::heap::Tracer) {
                    let ($value, $tracer) = (self, tracer);
                    if <Self as $crate::heap::Trace>::CYCLIC $body
                }

                $(fn finalize($this: &$crate::heap::Gc<Self>) $finalize)?
            }

            // A type with a `Drop` of its own would implement this twice.
            #[allow(dead_code, reason = "exists to conflict")]
            trait HasNoDrop {}
            #[allow(drop_bounds, reason = "exists to conflict")]
            impl<T: Drop> HasNoDrop for T {}
            impl<$($param: $crate::heap::Trace $(+ $bound)?),*> HasNoDrop for $name<$($param),*> {}
        };
    };
    (@finalizes finalize $this:ident) => { true };
    (@finalizes) => { false };
}

/// Implements [`Trace`](crate::heap::Trace) for types of which the collector
/// need not know what is in them: those without handles. Handles in them keep
/// their objects alive, and cycles through them are never found.
///
/// ```
/// use filed::heap::{Heap, leaf};
///
/// struct Point { x: f64, y: f64 }
/// leaf!(Point);
///
/// let heap = Heap::new();
/// let point = heap.alloc(Point { x: 1.0, y: 2.0 })?;
/// assert_eq!(point.x + point.y, 3.0);
/// # Ok::<(), filed::heap::HeapFull>(())
/// ```
#[macro_export]
macro_rules! leaf {
    ($($type:ty),+ $(,)?) => {$(
        #[allow(unsafe_code, reason = "nothing is reported, so nothing wrong")]
        // SAFETY: nothing is reported: what the value holds counts as held from outside.
        unsafe impl $crate::heap::Trace for $type {
            const CYCLIC: bool = false;
            #[inline]
            fn trace(&self, _: &mut $crate::heap::Tracer) {}
        }
    )+};
}
