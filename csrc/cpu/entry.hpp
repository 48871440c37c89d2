// How the functions of one instruction set's object file begin: include this once, behind the definition of
// METAEDIT_SECTION (a string) for a level beyond the baseline.
//
// They stand in a section of their own, so that a test can see in the finished library that no other code uses
// the instruction set.
#pragma once

#if defined(__ELF__) && defined(METAEDIT_SECTION)
#define METAEDIT_ENTRY_OF(Result) __attribute__((section(METAEDIT_SECTION))) static Result
#else
#define METAEDIT_ENTRY_OF(Result) static Result
#endif
#define METAEDIT_ENTRY METAEDIT_ENTRY_OF(void)
