// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Stand-in for nvidia-modeset.ko: minor 254 of nvidia's major number. */
#include "stand-in.h"

STAND_IN_MODULE("nvidia-modeset");

static bool fail_malloc;
module_param_named(fail_malloc, fail_malloc, bool, 0400);
static bool malloc_verbose;
module_param_named(malloc_verbose, malloc_verbose, bool, 0400);
static char *config_file;
module_param_named(config_file, config_file, charp, 0400);

STAND_IN_ENDS(nvidia_register_module(THIS_MODULE), nvidia_unregister_module());
