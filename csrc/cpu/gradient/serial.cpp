// Compiled for every machine.

#include "cpu/gradient/vectors_serial.hpp"

#define METAEDIT_LEVEL serial
#include "cpu/gradient/entry_points.hpp"
