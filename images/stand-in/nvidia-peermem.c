// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Stand-in for nvidia-peermem.ko: it depends on nvidia and does nothing. */
#include "stand-in.h"

STAND_IN_MODULE("nvidia-peermem");

static int peerdirect_support;
module_param(peerdirect_support, int, 0444);
static int persistent_api_support = 1;
module_param(persistent_api_support, int, 0444);

STAND_IN_ENDS(nvidia_p2p_get_pages(), (void)0);
