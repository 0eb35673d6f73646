/* SPDX-License-Identifier: Apache-2.0
 *
 * Included ahead of every core source when the C library is built. Everything is compiled with hidden
 * visibility; what the public header declares is the exception. */
#pragma GCC visibility push(default)
#include "../ssm/src/ssm.h"
#pragma GCC visibility pop
