// SPDX-License-Identifier: Apache-2.0

// Takes each packet of ring "in", writes its bytes in capitals, and puts it into ring "out", until "in" is shut down:
// echo POOL. An example of how Go uses ssm.h, without a layer in between:
//
//	CGO_CFLAGS=-I$PWD/../../ssm/src CGO_LDFLAGS="-L$LIB -lssm" go build
package main

// #include <stdlib.h>
// #include <ssm.h>
import "C"

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"
)

func check(result C.int) error {
	if result < 0 {
		return fmt.Errorf("%s", C.GoString(C.ssm_strerror(result)))
	}
	return nil
}

func open(pool *C.struct_ssm_pool, name string) (*C.struct_ssm_ring, error) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	var ring *C.struct_ssm_ring
	options := C.struct_ssm_ring_options{as_it_is: C.UINT32_MAX} // as it is
	options.size = C.size_t(unsafe.Sizeof(options))
	err := check(C.ssm_ring_open(pool, text, &options, &ring))
	return ring, err
}

// The memory is the pool's: Go's collector knows nothing of it, and nobody else may hold the packet meanwhile.
func upper(pool *C.struct_ssm_pool, handle C.uint64_t) error {
	var view C.struct_ssm_packet
	if err := check(C.ssm_packet_view(pool, handle, &view)); err != nil {
		return err
	}
	data := unsafe.Slice((*byte)(unsafe.Pointer(view.data)), int(view.length))
	copy(data, bytes.ToUpper(data))
	return nil
}

func run(name string) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	var pool *C.struct_ssm_pool
	if err := check(C.ssm_attach_name(text, nil, 0, &pool)); err != nil {
		return err
	}
	defer C.ssm_close_name(text, pool)
	from, err := open(pool, "in")
	if err != nil {
		return err
	}
	defer C.ssm_ring_close(from)
	to, err := open(pool, "out")
	if err != nil {
		return err
	}
	defer C.ssm_ring_close(to)
	for {
		var handle C.uint64_t
		got := C.ssm_ring_get(from, &handle, 1, -1) // -1: SSM_FOREVER
		if got == -C.SSM_E_SHUTDOWN {
			return nil
		}
		if err := check(got); err != nil {
			return err
		}
		if err := upper(pool, handle); err != nil {
			return err
		}
		if err := check(C.ssm_ring_put(to, &handle, 1, 0, -1)); err != nil {
			return err
		}
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: echo POOL")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", os.Args[1], err)
		os.Exit(1)
	}
}
