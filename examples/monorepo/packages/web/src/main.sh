. /repo/packages/shared/src/names.sh
echo "web greets $(names)"
