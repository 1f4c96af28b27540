#!/bin/sh
. ./function/words.sh
say script
