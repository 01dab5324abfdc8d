/* Start-up of a bare Cortex-M: vectors, memory, the floating-point unit, then the self-test under semihosting. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint32_t edge_stack_top, edge_data_load, edge_data, edge_data_end, edge_bss, edge_bss_end;
extern int main(void);
extern void initialise_monitor_handles(void);
void edge_reset(void);
void edge_fault(void);

__attribute__((section(".vectors"), used)) static void *const VECTORS[16] = {
    &edge_stack_top, (void *)edge_reset, (void *)edge_fault, (void *)edge_fault,
    (void *)edge_fault, (void *)edge_fault, (void *)edge_fault,
};

/* A fault ends the run with status 1 instead of hanging the emulator. */
void edge_fault(void)
{
    _Exit(1);
}

void edge_reset(void)
{
    memcpy(&edge_data, &edge_data_load, (size_t)((char *)&edge_data_end - (char *)&edge_data));
    memset(&edge_bss, 0, (size_t)((char *)&edge_bss_end - (char *)&edge_bss));
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the coprocessors 10 and 11 are the FPU */
    __asm volatile("dsb\nisb");
#endif
    initialise_monitor_handles();
    exit(main());
}
