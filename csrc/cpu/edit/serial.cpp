// Compiled for every machine.

#include "cpu/mlp/lanes_serial.hpp"

#define METAEDIT_LEVEL serial
#include "cpu/edit/entry_points.hpp"
