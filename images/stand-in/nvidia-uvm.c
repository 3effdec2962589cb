// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Stand-in for nvidia-uvm.ko: a major number of its own with two devices, nvidia-uvm and nvidia-uvm-tools. */
#include "stand-in.h"

STAND_IN_MODULE("nvidia-uvm");

static int uvm_disable_hmm;
module_param(uvm_disable_hmm, int, 0444);
static int uvm_debug_prints;
module_param(uvm_debug_prints, int, 0644);
static uint uvm_perf_prefetch_enable = 1;
module_param(uvm_perf_prefetch_enable, uint, 0444);

STAND_IN_ENDS(nvUvmInterfaceSessionCreate(THIS_MODULE), nvUvmInterfaceSessionDestroy());
