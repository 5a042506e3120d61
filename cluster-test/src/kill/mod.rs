//! Kill -9, again and again: nothing acknowledged may be lost.
