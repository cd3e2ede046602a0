//! `Arguments`: one call as generated code reads it, with the type of every value checked.
//!
//! Generated Rust code does not compare the type of a field or an element with the expected
//! one: it would read the bytes of a number as a string, and the rest as the next call. Here
//! such a value is an error before any of it is read. It is not skipped, because a write whose
//! value had another type would then delete the key. After an error the rest of the call can be
//! skipped, because what remains of it is known, so the connection stays usable.

use thrift::protocol::{
    TFieldIdentifier, TInputProtocol, TListIdentifier, TMapIdentifier, TMessageIdentifier,
    TSetIdentifier, TStructIdentifier, TType,
};
use thrift::{ProtocolError, ProtocolErrorKind};

use crate::rpc::message::{Input, MAX_LIST};

/// A struct or container that is being read.
struct Open {
    is_struct: bool,
    /// The types of the values that come next: of a struct, that of the field whose head was read.
    /// Those of a map alternate between two: with an even number left the next one is a key, of
    /// the first type.
    types: [TType; 2],
    /// How many values are left; of a struct, in the field.
    left: usize,
}

/// The arguments of one call, after its header.
pub(super) struct Arguments<'a> {
    input: &'a mut Input,
    /// The header, for the processor. None once it was read.
    header: Option<TMessageIdentifier>,
    /// What is being read, outermost first. The arguments are one struct.
    open: Vec<Open>,
    /// A value could not be read to its end, so what follows cannot be interpreted.
    is_lost: bool,
}

impl Arguments<'_> {
    /// The arguments that follow `header` in `input`.
    pub fn new(input: &mut Input, header: TMessageIdentifier) -> Arguments<'_> {
        Arguments {
            input,
            header: Some(header),
            open: vec![Open {
                is_struct: false,
                types: [TType::Struct; 2],
                left: 1,
            }],
            is_lost: false,
        }
    }

    /// Skips what was not read of the call, so that the next one can be read.
    ///
    /// # Errors
    /// The end of the call is not known, or does not arrive.
    pub fn skip_rest(mut self) -> thrift::Result<()> {
        if self.is_lost {
            return Err(invalid("the end of the call is not known".into()));
        }
        while let Some(open) = self.open.pop() {
            for left in (1..=open.left).rev() {
                self.input.skip(open.types[left % 2])?;
            }
            if open.is_struct {
                // The rest of a struct is read as one that begins here.
                self.input.read_struct_end()?;
                self.input.skip(TType::Struct)?;
            }
        }
        Ok(())
    }

    /// Reads a value if it has the expected type.
    fn value<T>(
        &mut self,
        expected: TType,
        read: impl FnOnce(&mut Input) -> thrift::Result<T>,
    ) -> thrift::Result<T> {
        match self.open.last_mut().filter(|open| open.left > 0) {
            Some(open) if open.types[open.left % 2] == expected => open.left -= 1,
            Some(Open { types, left, .. }) => {
                let found = types[*left % 2];
                return Err(invalid(format!("{found} where {expected} was expected")));
            }
            None => return Err(invalid(format!("no {expected} where one was expected"))),
        }
        self.head(read)
    }

    /// Reads something that is not a value.
    fn head<T>(&mut self, read: impl FnOnce(&mut Input) -> thrift::Result<T>) -> thrift::Result<T> {
        read(self.input).inspect_err(|_| self.is_lost = true)
    }

    /// Begins a container with that many values of each of its types.
    fn begin(&mut self, types: [TType; 2], size: i32, values: usize) -> thrift::Result<()> {
        let size = size as usize;
        self.open.push(Open {
            is_struct: false,
            types,
            left: size * values,
        });
        if size <= MAX_LIST {
            return Ok(());
        }
        Err(invalid(format!(
            "a list of {size} elements, where at most {MAX_LIST} are accepted"
        )))
    }
}

/// Methods that read one value of a type.
macro_rules! values {
    ($($read:ident: $expected:ident, $result:ty;)*) => {$(
        fn $read(&mut self) -> thrift::Result<$result> {
            self.value(TType::$expected, |input| input.$read())
        }
    )*};
}

/// Methods that read what is not a value.
macro_rules! heads {
    ($($read:ident: $result:ty;)*) => {$(
        fn $read(&mut self) -> thrift::Result<$result> {
            self.head(|input| input.$read())
        }
    )*};
}

/// Methods that end a struct or container.
macro_rules! ends {
    ($($end:ident)*) => {$(
        fn $end(&mut self) -> thrift::Result<()> {
            self.open.pop();
            self.head(|input| input.$end())
        }
    )*};
}

impl TInputProtocol for Arguments<'_> {
    values! {
        read_bool: Bool, bool;
        read_bytes: String, Vec<u8>;
        skip_binary: String, ();
        read_i8: I08, i8;
        read_i16: I16, i16;
        read_i32: I32, i32;
        read_i64: I64, i64;
        read_double: Double, f64;
        read_uuid: Uuid, uuid::Uuid;
    }
    heads! { read_message_end: (); read_field_end: (); read_byte: u8; }
    ends! { read_struct_end read_list_end read_set_end read_map_end }

    fn read_message_begin(&mut self) -> thrift::Result<TMessageIdentifier> {
        let again = || invalid("the header was read before".into());
        self.header.take().ok_or_else(again)
    }

    fn read_string(&mut self) -> thrift::Result<String> {
        // Text that is not UTF-8 is an error after all of it was read.
        Ok(String::from_utf8(self.read_bytes()?)?)
    }

    fn read_struct_begin(&mut self) -> thrift::Result<Option<TStructIdentifier>> {
        let begun = self.value(TType::Struct, |input| input.read_struct_begin())?;
        self.open.push(Open {
            is_struct: true,
            types: [TType::Stop; 2],
            left: 0,
        });
        Ok(begun)
    }

    fn read_field_begin(&mut self) -> thrift::Result<TFieldIdentifier> {
        let field = self.head(|input| input.read_field_begin())?;
        if field.field_type != TType::Stop
            && let Some(open) = self.open.last_mut()
        {
            (open.types, open.left) = ([field.field_type; 2], 1);
        }
        Ok(field)
    }

    fn read_list_begin(&mut self) -> thrift::Result<TListIdentifier> {
        let list = self.value(TType::List, |input| input.read_list_begin())?;
        self.begin([list.element_type; 2], list.size, 1)?;
        Ok(list)
    }

    fn read_set_begin(&mut self) -> thrift::Result<TSetIdentifier> {
        let set = self.value(TType::Set, |input| input.read_set_begin())?;
        self.begin([set.element_type; 2], set.size, 1)?;
        Ok(set)
    }

    fn read_map_begin(&mut self) -> thrift::Result<TMapIdentifier> {
        let map = self.value(TType::Map, |input| input.read_map_begin())?;
        let types = [map.key_type, map.value_type].map(|found| found.unwrap_or(TType::Stop));
        self.begin(types, map.size, 2)?;
        Ok(map)
    }
}

fn invalid(message: String) -> thrift::Error {
    ProtocolError::new(ProtocolErrorKind::InvalidData, message).into()
}
